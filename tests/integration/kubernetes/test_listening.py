"""The test API server leaves no connection open, also of those who say nothing."""

import asyncio
import socket
from pathlib import Path

from tests.support.kube.fake import fake_kube


async def test_who_is_still_shaking_hands_when_a_server_stops_is_hung_up_on(tmp_path: Path) -> None:
    async with fake_kube(tmp_path) as kube:
        await kube.start()
        listening = kube.api.listening
        assert listening is not None
        with socket.create_connection(("127.0.0.1", kube.api.port)) as silent:
            silent.setblocking(False)
            async with asyncio.timeout(20):
                while not listening.open():  # noqa: ASYNC110  # the kernel has no event for it
                    await asyncio.sleep(0.001)
                await kube.stop()
                assert await asyncio.get_running_loop().sock_recv(silent, 1) == b""
        assert not listening.open()
