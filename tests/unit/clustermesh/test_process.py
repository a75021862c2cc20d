"""A process stops when asked, and says what is wrong in one sentence with an exit code."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from clustermesh import process
from clustermesh.settings import SettingsError
from kvstore.client import Unavailable

START = "import asyncio, sys\nfrom clustermesh import process\n"
END = "\nsys.exit(process.run(main, program='example', grace=1))"


def started(body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START + textwrap.dedent(body) + END],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(running: subprocess.Popen[str], *signals: int) -> tuple[int, str]:
    with running:
        assert running.stdout is not None
        for number in signals:
            running.stdout.readline()
            os.kill(running.pid, number)
        _, errors = running.communicate(timeout=30)
    return running.returncode, errors


FOR_EVER = """
    async def main():
        try:
            print("up", flush=True)
            await asyncio.sleep(1000)
        finally:
            print("cleaned", flush=True)
"""
STUBBORN = """
    async def main():
        while True:
            try:
                print("up", flush=True)
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                pass
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(number: int) -> None:
    assert ended(started(FOR_EVER), number) == (0, "")


def test_what_does_not_stop_is_ended() -> None:
    code, errors = ended(started(STUBBORN), signal.SIGTERM)
    assert (code, errors) == (
        1,
        "example: did not stop within 1 s of the signal; ended without finishing\n",
    )


def test_a_second_signal_ends_it_at_once() -> None:
    code, errors = ended(started(STUBBORN), signal.SIGINT, signal.SIGINT)
    assert (code, errors) == (130, "")


def test_a_fault_in_a_group_of_tasks_is_one_line() -> None:
    body = """
        async def fail():
            raise process.Fault("the etcd is another cluster's; name the right one", code=3)
        async def main():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
    """
    assert ended(started(body)) == (
        3,
        "example: the etcd is another cluster's; name the right one\n",
    )


def test_a_bug_is_a_line_with_its_place() -> None:
    code, errors = ended(started("async def main():\n    {}['x']"))
    assert code == 70
    assert errors.startswith("example: internal error at <string>:")
    assert errors.endswith("KeyError: 'x'; please report this\n")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "sentence", "code"),
    [
        (SettingsError("--x is required"), "--x is required", 2),
        (Unavailable("etcd does not answer"), "etcd does not answer", 1),
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied", 1),
        (ValueError("whose?"), "internal error: ValueError: whose?; please report this", 70),
    ],
)
def test_errors_are_told_by_whose_they_are(error: Exception, sentence: str, code: int) -> None:
    assert process.describe(error) == sentence
    assert process.code_of(error) == code
