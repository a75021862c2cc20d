"""Connections that are tried for the operator."""

import asyncio
import socket

import pytest

from agent.probes.knock import MOST, knock
from clustermesh.http import Refused


async def test_an_open_port_answers_and_a_closed_one_says_why():
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        other = closed.getsockname()[1]
        good, bad = await knock({"targets": f"127.0.0.1:{port},127.0.0.1:{other}"})
    server.close()
    assert good.target == f"127.0.0.1:{port}"
    assert good.seconds is not None
    assert not good.error
    assert bad.error == "Connection refused"


async def test_a_datagram_is_answered_refused_or_only_sent():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talking,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed,
    ):
        for one in (silent, talking, closed):
            one.bind(("127.0.0.1", 0))
        spots = [f"127.0.0.1:{one.getsockname()[1]}/UDP" for one in (silent, talking, closed)]
        closed.close()
        talking.setblocking(False)

        def answer() -> None:
            talking.sendto(b"here", talking.recvfrom(64)[1])

        asyncio.get_running_loop().add_reader(talking, answer)
        sent, answered, refused = await knock({"targets": ",".join(spots)})
        asyncio.get_running_loop().remove_reader(talking)
    assert [it.target for it in (sent, answered, refused)] == spots
    assert (sent.seconds, sent.error) == (None, "")
    assert answered.seconds is not None
    assert refused.error == "Connection refused"


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"targets": ""},
        {"targets": "localhost:80"},
        {"targets": "10.0.0.1"},
        {"targets": "10.0.0.1:0"},
        {"targets": "10.0.0.1:99999"},
        {"targets": "10.0.0.1:80", "more": "1"},
        {"targets": "10.0.0.1:80/SCTP"},
        {"targets": ",".join(["10.0.0.1:80"] * (MOST + 1))},
    ],
)
async def test_odd_questions_are_refused(query: dict[str, str]):
    with pytest.raises(Refused):
        await knock(query)
