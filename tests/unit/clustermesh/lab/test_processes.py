"""Processes known by pid and start time."""

import signal
import sys
from pathlib import Path

import pytest

from clustermesh.lab import processes
from clustermesh.lab.processes import Process


def sleeper(log: Path) -> Process:
    return processes.start(
        "test/sleeper",
        (
            sys.executable,
            "-I",
            "-S",
            "-c",
            "print('awake', flush=True); import time; time.sleep(60)",
        ),
        log,
    )


def test_a_process_is_alive_until_it_is_killed(tmp_path: Path):
    process = sleeper(tmp_path / "log")
    assert processes.alive(process)
    assert processes.send(process, signal.SIGKILL)
    assert processes.wait_gone([process], 10) == []
    assert not processes.alive(process)
    assert not processes.send(process, signal.SIGKILL)


def test_a_pid_that_belongs_to_somebody_else_now_is_left_alone(tmp_path: Path):
    process = sleeper(tmp_path / "log")
    earlier = Process(
        target="x", pid=process.pid, started=process.started - 1, argv=process.argv, log=""
    )
    try:
        assert not processes.alive(earlier)
        assert not processes.send(earlier, signal.SIGKILL)
        assert processes.alive(process)
    finally:
        processes.send(process, signal.SIGKILL)
        processes.wait_gone([process], 10)


def test_the_log_tells_why_a_process_ended(tmp_path: Path):
    argv = (sys.executable, "-I", "-S", "-c", "import sys; sys.exit('no etcd\\n')")
    process = processes.start("test/failing", argv, tmp_path / "logs" / "x.log")
    processes.wait_gone([process], 10)
    assert processes.last_line(process.log) == "no etcd"


def test_a_log_that_is_not_there_says_nothing(tmp_path: Path):
    assert processes.last_line(str(tmp_path / "none")) == ""


def test_a_process_is_told_what_to_do_by_its_command_line_alone():
    inherited = {"PATH": "/bin", "ETCD_NAME": "x", "CLUSTERMESH_CLUSTER_ID": "7", "HOME": "/"}
    assert processes.environment(inherited) == {"PATH": "/bin", "HOME": "/"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"level":"fatal","msg":"no disk","caller":"x.go:1"}', "no disk"),
        ('{"event":"cannot start","error":"no route"}', "cannot start: no route"),
        ('{"level":"info"}', '{"level":"info"}'),
        ("plain words", "plain words"),
    ],
)
def test_of_a_structured_record_only_what_it_says_is_told(tmp_path: Path, line: str, told: str):
    log = tmp_path / "log"
    log.write_text(f"earlier\n{line}\n\n")
    assert processes.last_line(str(log)) == told
