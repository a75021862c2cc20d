"""The relay: a descriptor to a unix socket and back, until either side has gone."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from clustermesh import relay

ROOT = Path(relay.__file__).parents[1]
PATIENCE = 20


class Ends(NamedTuple):
    """What the asker has of a running relay, and the process's side of its socket."""

    ask: int
    hear: int
    process: socket.socket
    thread: threading.Thread

    def heard(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            found += os.read(self.hear, size - len(found))
        return found


@contextmanager
def running(path: Path) -> Iterator[Ends]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        inp, ask = os.pipe()
        hear, out = os.pipe()
        thread = threading.Thread(target=_quietly, args=(str(path), inp, out))
        thread.start()
        process, _ = listener.accept()
        with process:
            yield Ends(ask, hear, process, thread)
        thread.join(PATIENCE)
        assert not thread.is_alive()
        for descriptor in (inp, out, hear):
            os.close(descriptor)


def _quietly(path: str, inp: int, out: int) -> None:
    relay.relay(path, inp, out)


def test_bytes_go_both_ways_after_a_greeting(tmp_path: Path):
    with running(tmp_path / "s") as ends:
        assert ends.heard(len(relay.GREETING)) == relay.GREETING
        os.write(ends.ask, b"question")
        assert ends.process.recv(100) == b"question"
        large = os.urandom(300_000)
        sender = threading.Thread(target=ends.process.sendall, args=(large,))
        sender.start()
        assert ends.heard(len(large)) == large
        sender.join()
        os.close(ends.ask)


def test_it_ends_when_the_asker_has_gone(tmp_path: Path):
    with running(tmp_path / "s") as ends:
        os.close(ends.ask)
        assert ends.process.recv(1) == b"", "the process sees that, too"
        ends.thread.join(PATIENCE)
        assert not ends.thread.is_alive()


def test_it_ends_when_the_process_hangs_up(tmp_path: Path):
    with running(tmp_path / "s") as ends:
        ends.process.close()
        ends.thread.join(PATIENCE)
        assert not ends.thread.is_alive()
        os.close(ends.ask)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage: clustermesh-relay SOCKET"),
        (["/nowhere/agent.sock"], "/nowhere/agent.sock: No such file or directory"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(arguments: list[str], said: str):
    found = subprocess.run(
        [sys.executable, "-S", "-m", "clustermesh.relay", *arguments],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert found.returncode == 1
    assert said in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_it_starts_with_next_to_nothing():
    code = "import sys, clustermesh.relay; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(found.stdout.split())
    assert not loaded & {"asyncio", "msgspec", "re", "ssl", "subprocess", "typing_extensions"}
    assert {name for name in loaded if name.startswith("clustermesh.")} == {"clustermesh.relay"}
