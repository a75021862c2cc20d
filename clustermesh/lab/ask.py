"""Ask echo servers who they are, over fresh connections, and sum up: ``ask.py ADDRESS PORT``.

Runs inside a pod (after ``enter.py``); prints one line of JSON: how many answers each pod gave,
every failure, how long it took and when it ended. Only the standard library, so that it starts in
milliseconds.
"""

import argparse
import json
import socket
import sys
import time


def ask(address: str, port: int, *, udp: bool, timeout: float) -> dict[str, str]:
    """One question over a new socket; raises ``OSError`` or ``ValueError``."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect((address, port))
        connection.sendall(b"who are you?\n")
        received = b""
        while not received.endswith(b"\n"):
            part = connection.recv(65536)
            if not part:
                raise ConnectionResetError(0, "closed without an answer")
            received += part
    answer: dict[str, str] = json.loads(received)
    return answer


class Tally:
    """What came back."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.pods: dict[str, int] = {}
        self.peers: set[str] = set()
        self.failures: list[str] = []

    def question(self, options: argparse.Namespace) -> str:
        """Ask once; the pod that answered, or an empty text."""
        try:
            answer = ask(options.address, options.port, udp=options.udp, timeout=options.timeout)
        except (OSError, ValueError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            return ""
        pod = f"{answer['cluster']}/{answer['pod']}"
        self.pods[pod] = self.pods.get(pod, 0) + 1
        self.peers.add(answer["peer"].rpartition(":")[0])
        return pod

    def report(self) -> str:
        return json.dumps(
            {
                "pods": self.pods,
                "peers": sorted(self.peers),
                "failures": self.failures,
                "seconds": round(time.monotonic() - self.began, 4),
                "ended": time.time(),
            }
        )


def options_from(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ask.py", description=__doc__)
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--udp", action="store_true", help="datagrams instead of connections")
    parser.add_argument("--count", type=int, default=1, help="how many questions")
    parser.add_argument(
        "--timeout", type=float, default=2.0, help="seconds to wait for each answer"
    )
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between questions")
    parser.add_argument("--until", default="", help="ask until this CLUSTER/POD has answered")
    parser.add_argument("--for", dest="limit", type=float, default=30.0, help="... at most so long")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    options = options_from(arguments)
    tally = Tally()
    if options.until:
        while time.monotonic() - tally.began < options.limit:
            if tally.question(options) == options.until:
                break
            time.sleep(options.pause)
    else:
        for _ in range(options.count):
            tally.question(options)
            time.sleep(options.pause)
    sys.stdout.write(tally.report() + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
