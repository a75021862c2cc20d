"""What an echo server says, over socket pairs and without a network."""

import json
import socket
import struct

from clustermesh.lab.echo import PKTINFO6, Conversation, answerer, local_address, text

ANSWER = answerer("cluster-a", "node-1", "rebel-base-1")


class Named:
    """One end of a socket pair that has the names of a TCP connection."""

    def __init__(self, end: socket.socket) -> None:
        self.recv, self.sendall, self.shutdown = end.recv, end.sendall, end.shutdown

    def getpeername(self) -> tuple[str, int]:
        return ("10.1.1.11", 50000)

    def getsockname(self) -> tuple[str, int]:
        return ("10.1.1.10", 8080)


def talk(sent: bytes) -> tuple[bytes, bool]:
    client, server = socket.socketpair()
    with client, server:
        client.sendall(sent)
        conversation = Conversation(Named(server), ANSWER)
        goes_on = conversation.go_on()
        client.setblocking(False)
        try:
            return client.recv(65536), goes_on
        except BlockingIOError:
            return b"", goes_on


def test_a_line_is_answered_with_who_it_is_and_whom_it_sees():
    received, goes_on = talk(b"hello\n")
    assert json.loads(received) == {
        "cluster": "cluster-a",
        "node": "node-1",
        "pod": "rebel-base-1",
        "peer": "10.1.1.11:50000",
        "local": "10.1.1.10:8080",
        "message": "hello",
    }
    assert goes_on


def test_every_line_is_answered_and_half_a_line_waits():
    received, _ = talk(b"one\ntwo\nthr")
    assert [json.loads(line)["message"] for line in received.splitlines()] == ["one", "two"]


def test_http_is_answered_as_http_and_closed():
    received, goes_on = talk(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["pod"] == "rebel-base-1"
    assert not goes_on


def test_a_line_without_end_is_given_up():
    client, server = socket.socketpair()
    with client, server:
        conversation = Conversation(Named(server), ANSWER)
        conversation._received = b"x" * 65536
        client.sendall(b"x")
        assert not conversation.go_on()


def test_addresses_are_written_as_in_a_url():
    assert text(("10.0.0.1", 80)) == "10.0.0.1:80"
    assert text(("fe80::1%eth0", 80)) == "[fe80::1]:80"


def test_the_address_of_a_datagram_is_taken_from_its_control_data():
    four = struct.pack("=I4s4s", 1, bytes(4), socket.inet_aton("10.1.1.10"))
    assert local_address([(socket.IPPROTO_IP, 8, four)]) == "10.1.1.10"
    six = socket.inet_pton(socket.AF_INET6, "fd00::1") + bytes(4)
    assert local_address([(socket.IPPROTO_IPV6, PKTINFO6, six)]) == "fd00::1"
    assert local_address([]) == ""
