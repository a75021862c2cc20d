"""Two ways to do the same, in turns: what each takes, and the ratio of neighbours.

A round is short and both ways take turns, so that whatever else the machine does slows both; the
median of the rounds' ratios is what counts. Of each round there is the wall's time and the time
of this process's CPUs, in which the kernel's work for its packets is contained.
"""

import math
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

CHUNK = 1 << 18
BURST = 32 << 20
QUESTIONS = 300
CONNECTIONS = 200


@dataclass(frozen=True)
class Took:
    """Seconds of one round."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


Ways = Mapping[str, Callable[[], object]]


def in_turns(
    ways: Ways, rounds: int, *, before: Mapping[str, Callable[[], object]] = {}
) -> "Table":
    """Every way once a round, to and fro; the first round warms up and does not count."""
    seen: dict[str, list[Took]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds + 1):
        for name in names if number % 2 else reversed(names):
            before.get(name, lambda: None)()
            took = timed(ways[name])
            if number:
                seen[name].append(took)
    return Table(seen)


@dataclass(frozen=True)
class Table:
    """What every way took; the last one is the reference."""

    seen: Mapping[str, list[Took]]

    def show(self, what: str, each: Callable[[float], float], unit: str) -> None:
        """One line: each way's median as a figure (from seconds of a round), and the ratios."""
        *others, reference = self.seen
        cells = [f"{name} {each(self.median(name)):8.2f}" for name in self.seen]
        for name in others:
            wall, cpu = self.ratio(name, reference, "wall"), self.ratio(name, reference, "cpu")
            cells.append(f"{name}/{reference}: time {wall}, CPU {cpu}")
        print(f"{what:36} {unit:7} {'   '.join(cells)}", flush=True)

    def median(self, name: str) -> float:
        return statistics.median(took.wall for took in self.seen[name])

    def ratio(self, name: str, reference: str, of: str) -> "Ratio":
        pairs = zip(self.seen[name], self.seen[reference], strict=True)
        return Ratio.among([getattr(a, of) / getattr(b, of) for a, b in pairs])


CERTAIN = 0.98
"""Half of 1.96: ranks so many roots of n off the middle have the median between them, 95 times of
100."""


@dataclass(frozen=True)
class Ratio:
    """The median of neighbours' ratios, the quartiles around it, and where the true median is with
    95 % certainty: whatever the distribution, if rounds do not depend on each other."""

    middle: float
    quartiles: tuple[float, float]
    within: tuple[float, float]

    @classmethod
    def among(cls, ratios: Sequence[float]) -> "Ratio":
        low, middle, high = statistics.quantiles(ratios, n=4)
        ranked = sorted(ratios)
        rank = max(1, math.floor(len(ranked) / 2 - CERTAIN * math.sqrt(len(ranked))))
        return cls(middle, (low, high), (ranked[rank - 1], ranked[-rank]))

    def __str__(self) -> str:
        within, quartiles = (f"{low:.3f}-{high:.3f}" for low, high in (self.within, self.quartiles))
        return f"{self.middle:.3f} [{within}] ({quartiles})"


# --- kinds of work -------------------------------------------------------------------------------


def burst(client: socket.socket, server: socket.socket) -> Callable[[], None]:
    """BURST bytes over a connection, until the last one has arrived."""
    data, room = bytes(CHUNK), bytearray(1 << 20)

    def receive() -> None:
        left = BURST
        while left:
            left -= server.recv_into(room, min(left, len(room)))

    def work() -> None:
        reader = threading.Thread(target=receive)
        reader.start()
        for _ in range(BURST // CHUNK):
            client.sendall(data)
        reader.join()

    return work


def questions(client: socket.socket, server: socket.socket) -> Callable[[], None]:
    """QUESTIONS and answers between connected sockets, from one thread."""

    def work() -> None:
        for _ in range(QUESTIONS):
            client.send(b"x")
            _, peer = server.recvfrom(10)
            server.sendto(b"y", peer)
            client.recv(10)

    return work


def unconnected(
    client: socket.socket, server: socket.socket, target: tuple[str, int]
) -> Callable[[], None]:
    """The same by a socket that names its peer each time."""

    def work() -> None:
        for _ in range(QUESTIONS):
            client.sendto(b"x", target)
            _, peer = server.recvfrom(10)
            server.sendto(b"y", peer)
            client.recvfrom(10)

    return work


def reset_at_end(client: socket.socket) -> None:
    """Nothing is left of a connection, or the search for a free port would be what is measured."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def connections(
    make: Callable[[], socket.socket], target: tuple[str, int], server: socket.socket
) -> Callable[[], None]:
    """CONNECTIONS handshakes and ends, from one thread."""

    def work() -> None:
        for _ in range(CONNECTIONS):
            with make() as client:
                reset_at_end(client)
                client.connect(target)
                server.accept()[0].close()

    return work
