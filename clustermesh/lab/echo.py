"""The program in a pod: says over TCP and UDP who it is and whom it sees.

Only the standard library, imported sparingly: it must start in milliseconds
(``python -I -S echo.py CLUSTER NODE POD PORT``). A line or a datagram is answered with one line
of JSON on the same connection; an HTTP request with an HTTP response.
"""

import errno
import json
import os
import selectors
import socket
import sys
from collections.abc import Callable

LONGEST_LINE = 65536
PKTINFO6 = getattr(socket, "IPV6_PKTINFO", 50)
RECVPKTINFO6 = getattr(socket, "IPV6_RECVPKTINFO", 49)
PKTINFO4 = 8
SLOWEST_PEER = 5.0

Answer = Callable[[str, str, str], bytes]


def text(address: tuple[str, int]) -> str:
    """``10.1.1.10:80`` or ``[fd00::1]:80``."""
    host, port = address[0].partition("%")[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def answerer(cluster: str, node: str, pod: str) -> Answer:
    """What this pod says to a peer that reached it at a local address."""

    def answer(peer: str, local: str, message: str) -> bytes:
        told = {
            "cluster": cluster,
            "node": node,
            "pod": pod,
            "peer": peer,
            "local": local,
            "message": message,
        }
        return json.dumps(told).encode() + b"\n"

    return answer


class Conversation:
    """One TCP connection."""

    def __init__(self, connection: socket.socket, answer: Answer) -> None:
        self.connection = connection
        self._answer = answer
        self._received = b""
        self._http = False
        self._peer = text(connection.getpeername())
        self._local = text(connection.getsockname())

    def go_on(self) -> bool:
        """Read what is there and answer; False when the connection is over."""
        try:
            arrived = self.connection.recv(65536)
            if not arrived:
                return False
            self._received += arrived
            return self._lines()
        except OSError:
            return False

    def _lines(self) -> bool:
        while b"\n" in self._received:
            line, _, self._received = self._received.partition(b"\n")
            message = line.strip().decode(errors="replace")
            if message.startswith(("GET ", "HEAD ")):
                self._http = True
            elif self._http and not message:
                self._respond()
                return False
            elif not self._http:
                self.connection.sendall(self._answer(self._peer, self._local, message))
        return len(self._received) <= LONGEST_LINE

    def _respond(self) -> None:
        body = self._answer(self._peer, self._local, "")
        head = f"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        self.connection.sendall(head.encode() + b"\r\n\r\n" + body)
        self.connection.shutdown(socket.SHUT_WR)


class Server:
    """Listens on every family the namespace has."""

    def __init__(self, answer: Answer, port: int) -> None:
        self._answer = answer
        self._selector = selectors.DefaultSelector()
        for family in (socket.AF_INET, socket.AF_INET6):
            self._listen(family, port)

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                key.data(key.fileobj)

    def _listen(self, family: int, port: int) -> None:
        try:
            tcp = socket.socket(family, socket.SOCK_STREAM)
            udp = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT:
                return
            raise
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            tcp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            udp.setsockopt(socket.IPPROTO_IPV6, RECVPKTINFO6, 1)
        else:
            udp.setsockopt(socket.IPPROTO_IP, PKTINFO4, 1)
        tcp.bind(("", port))
        tcp.listen(1024)
        udp.bind(("", port))
        self._selector.register(tcp, selectors.EVENT_READ, self._accept)
        self._selector.register(udp, selectors.EVENT_READ, self._datagram)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
            connection.settimeout(SLOWEST_PEER)
            talk = Conversation(connection, self._answer)
        except OSError:
            return

        def go_on(_: socket.socket) -> None:
            if not talk.go_on():
                self._selector.unregister(connection)
                connection.close()

        self._selector.register(connection, selectors.EVENT_READ, go_on)

    def _datagram(self, listener: socket.socket) -> None:
        try:
            data, control, _, peer = listener.recvmsg(65536, 256)
            local = (local_address(control), listener.getsockname()[1])
            reply = self._answer(text(peer), text(local), data.strip().decode(errors="replace"))
            listener.sendmsg([reply], from_address(local[0]), 0, peer)
        except OSError:
            return


def local_address(control: list[tuple[int, int, bytes]]) -> str:
    """The address a datagram was sent to, from IP_PKTINFO or IPV6_PKTINFO; empty when unknown."""
    for level, kind, data in control:
        if level == socket.IPPROTO_IP and kind == PKTINFO4:
            return socket.inet_ntop(socket.AF_INET, data[8:12])
        if level == socket.IPPROTO_IPV6 and kind == PKTINFO6:
            return socket.inet_ntop(socket.AF_INET6, data[:16])
    return ""


def from_address(local: str) -> list[tuple[int, int, bytes]]:
    """Makes the answer leave from the address that was asked: a node has several."""
    if not local:
        return []
    if ":" in local:
        index = bytes(4)  # any device
        return [(socket.IPPROTO_IPV6, PKTINFO6, socket.inet_pton(socket.AF_INET6, local) + index)]
    source = socket.inet_aton(local)
    return [(socket.IPPROTO_IP, PKTINFO4, bytes(4) + source + bytes(4))]


def main(arguments: list[str]) -> None:
    cluster, node, pod, port = arguments
    server = Server(answerer(cluster, node, pod), int(port))
    os.write(1, b"listening\n")
    server.run()


if __name__ == "__main__":
    main(sys.argv[1:])
