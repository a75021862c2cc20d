"""The command line as a whole: exit codes, and one sentence instead of a traceback."""

import json
import signal
import sys
from collections.abc import Iterator

import pytest

from clustermesh.meshctl import main
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.lab import parsed_changes, signal_of
from clustermesh.version import VERSION


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """A command that ends ignores Ctrl-C from then on; these tests go on."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["meshctl", *arguments])
    monkeypatch.delenv("MESHCTL_MESH", raising=False)
    code = 0
    try:
        main.main()
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_version(monkeypatch, capsys):
    assert run(monkeypatch, capsys, "version") == (0, f"meshctl {VERSION}\n", "")
    code, out, _ = run(monkeypatch, capsys, "version", "-o", "json")
    assert (code, json.loads(out)) == (0, {"version": VERSION})


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("connect", "a", "b"),
        ("bpf", "lb", "list"),
        ("service", "list"),
        ("lab", "status", "--name", "absent"),
        ("lab", "exec", "--name", "absent", "x"),
        ("lab", "scale", "--name", "absent", "a/b", "3"),
        ("lab", "restart", "--name", "absent"),
        ("lab", "up", "--name", "not-a-name"),
        ("lab", "up", "--clusters", "0"),
        ("lab", "kill", "--name", "absent"),
        ("lab", "kill", "--name", "absent", "x", "-s", "NOPE"),
        ("lab", "annotate", "--name", "absent", "a/b", "nonsense"),
        ("bpf", "lb", "list", "--frontends", "--backends"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_sentence(monkeypatch, capsys, tmp_path, arguments):
    monkeypatch.setenv("CLUSTERMESH_LAB_ROOT", str(tmp_path / "labs"))
    code, out, err = run(monkeypatch, capsys, *arguments)
    assert code in (Exit.FAILED, Exit.USAGE)
    assert out == ""
    assert err.startswith("meshctl: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Permission denied: /x"),
        (SystemExit(130), 130, "interrupted"),
        (RuntimeError("boom\nboom"), 1, "a bug in meshctl (RuntimeError: boom boom)"),
    ],
)
def test_no_error_becomes_a_traceback(monkeypatch, capsys, error, code, said):
    def fail() -> None:
        raise error

    monkeypatch.delenv(main.DEBUG, raising=False)
    with pytest.raises(SystemExit) as end:
        main.run(fail)
    err = capsys.readouterr().err
    assert end.value.code == code
    assert said in err
    assert "Traceback" not in err


def test_annotations_are_written_as_for_kubectl():
    assert parsed_changes(["a=b=c", "d=", "e-"]) == {"a": "b=c", "d": "", "e": None}
    for wrong in ("nothing", "=x", "-"):
        with pytest.raises(MeshctlError, match="neither KEY=VALUE nor KEY-"):
            parsed_changes([wrong])


@pytest.mark.parametrize("written", ["KILL", "kill", "SIGKILL", "9"])
def test_signals_go_by_name_or_number(written: str):
    assert signal_of(written) == 9
