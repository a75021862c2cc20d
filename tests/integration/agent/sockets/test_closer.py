"""Real UDP sockets in real namespaces: those that talk to a backend that is gone are closed."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.sockets.closer import Closer
from agent.sockets.diag import Diag
from agent.sockets.namespaces import inside, namespaces
from bpf.datapath import maps_in_memory
from bpf.layout_lb import BackendValue, ReverseSocketKey, ReverseSocketValue
from tests.support.netns import Namespace, namespace

GONE, STAYS = 7001, 7002

# Opens a UDP socket for each "family address port", says cookies, then tells what became of each.
CLIENT = """
import socket, sys
made = []
for word in sys.argv[1:]:
    address, port = word.rsplit("@", 1)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    each = socket.socket(family, socket.SOCK_DGRAM)
    each.connect((address, int(port)))
    made.append(each)
print(*(int.from_bytes(e.getsockopt(socket.SOL_SOCKET, 57, 8), "little") for e in made), flush=True)
sys.stdin.readline()
for each in made:
    try:
        each.getpeername()
        print("open", end=" ")
    except OSError:
        print("closed", end=" ")
"""


class Client:
    """A program with UDP sockets, in a namespace and a cgroup."""

    def __init__(self, netns: Namespace, cgroup: Path, *peers: str) -> None:
        enter = f'echo $$ > {cgroup}/cgroup.procs && exec "$@"'
        self.process = subprocess.Popen(
            [
                *netns.launcher, "sh", "-c", enter, "sh",
                sys.executable, "-I", "-S", "-c", CLIENT, *peers,
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.cookies = [int(word) for word in self.process.stdout.readline().split()]
        assert len(self.cookies) == len(peers)

    def states(self) -> list[str]:
        """What its program sees of each socket; it ends with that."""
        out, _ = self.process.communicate("\n", timeout=20)
        return out.split()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def cgroup() -> Iterator[Path]:
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    top = next(Path(where) for _, where, kind, *_ in mounts if kind == "cgroup2")
    made = top / f"cm-test-sockets-{os.getpid()}"
    (made / "pod").mkdir(parents=True)
    try:
        yield made
    finally:
        for folder in (made / "pod", made):
            for _ in range(500):  # the kernel counts a killed process for a moment
                try:
                    folder.rmdir()
                except OSError:
                    subprocess.run(["sleep", "0.01"])
                else:
                    break


@pytest.fixture
def clients(cgroup: Path) -> Iterator[list[Client]]:
    made: list[Client] = []
    yield made
    for each in made:
        each.stop()


class World:
    """A closer over maps in memory, and the words of the socket programs in them."""

    def __init__(self, cgroup: Path, *, most: int = 64) -> None:
        maps = maps_in_memory()
        self.maps = {4: maps.reverse_sockets4, 16: maps.reverse_sockets6}
        self.closer = Closer(
            maps.reverse_sockets4, maps.reverse_sockets6, cgroup, pause=0.01, most=most
        )

    def translated(self, cookie: int, address: str, port: int) -> None:
        """As the socket program notes it when it translates a connection."""
        raw = packed(address)
        value = ReverseSocketValue(bytes(len(raw)), 80, 1).pack()
        self.maps[len(raw)].put_many([(ReverseSocketKey(cookie, raw, port).pack(), value)])


def here() -> int:
    """The network namespace of this thread."""
    return Path("/proc/thread-self/ns/net").stat().st_ino


def packed(address: str) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_pton(family, address)


def backend(address: str, port: int, proto: int = 17) -> BackendValue:
    return BackendValue(packed(address), port, proto)


def gone(*targets: tuple[str, int]) -> frozenset[tuple[bytes, int]]:
    return frozenset((packed(address), port) for address, port in targets)


def test_sockets_of_the_removed_backend_are_closed_and_no_others(cgroup, clients) -> None:
    with namespace("test-sockets-a") as one, namespace("test-sockets-b") as two:
        peers = (
            f"127.0.0.1@{GONE}",
            f"127.0.0.1@{STAYS}",
            f"::ffff:127.0.0.1@{GONE}",
            f"::1@{GONE}",
        )
        clients += [Client(one, cgroup, *peers), Client(two, cgroup / "pod", *peers)]
        world = World(cgroup)
        for client in clients:
            v4, other, mapped, v6 = client.cookies
            world.translated(v4, "127.0.0.1", GONE)
            world.translated(other, "127.0.0.1", STAYS)
            world.translated(mapped, "127.0.0.1", GONE)
            world.translated(v6, "::1", GONE)
        done = world.closer.close(gone(("127.0.0.1", GONE), ("::1", GONE)))
        assert done == (2, 6, "")
        for client in clients:
            assert client.states() == ["closed", "open", "closed", "closed"]


def test_who_connected_to_the_backend_itself_stays_connected(cgroup, clients) -> None:
    with namespace("test-sockets-a") as netns:
        clients.append(Client(netns, cgroup, f"127.0.0.1@{GONE}"))
        assert World(cgroup).closer.close(gone(("127.0.0.1", GONE))) == (1, 0, "")
        assert clients[0].states() == ["open"]


def test_processes_outside_of_the_cgroup_are_none_of_ours(cgroup, clients) -> None:
    with namespace("test-sockets-a") as netns:
        clients.append(Client(netns, cgroup, f"127.0.0.1@{GONE}"))
        world = World(cgroup / "pod")
        world.translated(clients[0].cookies[0], "127.0.0.1", GONE)
        assert world.closer.close(gone(("127.0.0.1", GONE))) == (0, 0, "")
        assert clients[0].states() == ["open"]


def test_namespaces_beyond_the_limit_are_left_out_and_said(cgroup, clients) -> None:
    with namespace("test-sockets-a") as one, namespace("test-sockets-b") as two:
        clients += [Client(it, cgroup, f"127.0.0.1@{GONE}") for it in (one, two)]
        world = World(cgroup, most=1)
        done = world.closer.close(gone(("127.0.0.1", GONE)))
        assert done.namespaces == 1
        assert "more than 1 network namespaces" in done.trouble


def test_a_thread_comes_back_from_its_visit(cgroup, clients) -> None:
    with namespace("test-sockets-a") as netns:
        clients.append(Client(netns, cgroup, f"127.0.0.1@{GONE}"))
        (pid,) = namespaces(cgroup, most=9)[0].values()
        before = here()
        with inside(pid):
            assert here() != before
            diag = Diag()
        assert here() == before
        with diag:  # made there, it goes on asking there
            assert [it.port for it in diag.connected_udp()] == [GONE]


def test_a_new_socket_in_the_place_of_an_old_one_is_not_mistaken_for_it(cgroup, clients) -> None:
    with namespace("test-sockets-a") as netns:
        clients.append(Client(netns, cgroup, f"127.0.0.1@{GONE}"))
        (pid,) = namespaces(cgroup, most=9)[0].values()
        with inside(pid):
            diag = Diag()
        with diag:
            (found,) = diag.connected_udp()
            other = found._replace(
                identity=found.identity[:-8] + (found.cookie + 1).to_bytes(8, "little")
            )
            assert diag.close(other) is False
        assert clients[0].states() == ["open"]


async def test_what_the_data_plane_removes_is_closed_soon(cgroup, clients) -> None:
    with namespace("test-sockets-a") as netns:
        clients.append(Client(netns, cgroup, f"127.0.0.1@{GONE}", f"127.0.0.1@{STAYS}"))
        world = World(cgroup)
        for cookie, port in zip(clients[0].cookies, (GONE, STAYS), strict=True):
            world.translated(cookie, "127.0.0.1", port)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(world.closer.run())
            world.closer.removed([backend("127.0.0.1", GONE), backend("127.0.0.1", STAYS, proto=6)])
            async with asyncio.timeout(20):
                while not world.closer.closed:  # noqa: ASYNC110 - the kernel tells nobody
                    await asyncio.sleep(0.01)
            running.cancel()
        assert clients[0].states() == ["closed", "open"]
        assert world.closer.sentences() == []
