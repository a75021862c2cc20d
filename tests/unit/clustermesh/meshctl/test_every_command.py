"""What holds for every command: JSON, a mesh to choose, exit codes that are documented."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import typer

from clustermesh import meshfile
from clustermesh.meshctl import cli, main
from clustermesh.meshctl.errors import Exit
from tests.support.trust import Pki, member

OPERATIONS = Path(__file__).parents[4] / "docs/operations.md"
NO_JSON = {"lab exec", "lab generate", "lab demo"}
"""A program of the operator's own, a measurement, a story: nobody parses these."""


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield " ".join(path), command
        return
    for name, each in below.items():
        yield from commands(each, (*path, name))


EVERY = dict(commands(typer.main.get_command(cli.app)))


def options(command: Any) -> set[str]:
    return {word for parameter in command.params for word in getattr(parameter, "opts", ())}


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_command_gives_json(name: str):
    assert ("-o" in options(EVERY[name])) is (name not in NO_JSON)


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_command_says_what_it_does(name: str):
    said = (EVERY[name].help or "").strip()
    assert said.endswith((".", ")", "`", "ip -6 route"))
    assert not EVERY[name].get_short_help_str(60).endswith("..."), "a list has room for a line"


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_option_says_what_it_takes(name: str):
    """With a word of ours, not with the name of a type."""
    for parameter in EVERY[name].params:
        if parameter.param_type_name == "option" and not parameter.is_flag:
            assert parameter.metavar or parameter.name == "flavour", parameter.name


def test_exit_codes_are_documented_in_one_table():
    rows = re.findall(r"^\| (\d+) \|", OPERATIONS.read_text(), re.MULTILINE)
    assert [int(row) for row in rows] == sorted(Exit)
    for code in Exit:
        assert code is Exit.OK or f"{code.value} " in cli.EPILOG


# --- every command, run ------------------------------------------------------------------------

WORDS = {
    "clusters": ["a", "b"],
    "cluster": ["a"],
    "peer": ["b"],
    "guest": ["c"],
    "name": ["d/s"],
    "number": ["7"],
    "which": ["a/d/p"],
    "key": ["cilium/"],
    "prefix": ["cilium/"],
    "source": ["a/d/p"],
    "target": ["b/d/p"],
    "token": ["cmjoin1.x.y"],
    "request": ["/nonexistent"],
    "kind": ["admin"],
}
"""What to say for an argument that has to be given."""
BESIDES = {
    "--timeout": ["0.2"],
    "--file": ["{folder}/x.tar.gz"],
    "--cluster": ["a"],
    "--dir": ["{folder}/pki"],
    "--seconds": ["0.2"],
}
OF_A_MESH = sorted(name for name in EVERY if not name.startswith("lab"))


Run = Callable[..., tuple[int, str, str]]
"""A command line to its exit code, and what it prints on standard output and error."""


class Dead(NamedTuple):
    """A mesh of two clusters where no process runs."""

    folder: Path
    run: Run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def ended(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["meshctl", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main.main()
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out, told.err

    return ended


@pytest.fixture
def dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Dead:
    made = []
    for at, name in enumerate("ab", 1):
        folder = tmp_path / name
        entry = member(folder, name, at, Pki(folder / "pki", name), apiserver=f"unix:{folder}/x")
        node = meshfile.Node(name="n1", agent=f"unix:{folder}/agent", bpf_root=str(folder))
        made.append(msgspec.structs.replace(entry, nodes=(node,)))
    meshfile.save(meshfile.Mesh(clusters=tuple(made)), tmp_path / "mesh.yaml")
    Pki(tmp_path / "pki", "a")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MESHCTL_MESH", str(tmp_path / "mesh.yaml"))
    return Dead(tmp_path, run)


def spoken(name: str, folder: Path) -> list[str]:
    """A whole command line: what must be given, and what keeps it short."""
    words = name.split()
    for parameter in EVERY[name].params:
        opts = getattr(parameter, "opts", [])
        if parameter.param_type_name == "argument":
            needed = parameter.required or parameter.name == "clusters"
            words += WORDS[parameter.name] if needed else []
        for option in {*opts} & BESIDES.keys():
            if option != "--cluster" or parameter.required:
                words += [option, *(it.format(folder=folder) for it in BESIDES[option])]
    return words


@pytest.mark.parametrize("name", OF_A_MESH)
def test_every_command_ends_with_json_or_a_sentence_where_nobody_answers(dead: Dead, name: str):
    code, out, err = dead.run(*spoken(name, dead.folder), "-o", "json", "--no-color")
    assert code in set(Exit), err
    assert "this is a bug" not in err
    assert "Traceback" not in err
    assert "\x1b[" not in out + err
    if out:
        json.loads(out)
    assert out or err, "it says nothing at all"
    if code:
        assert err.strip().splitlines()[-1].startswith("meshctl: "), err


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_command_tells_how_it_is_used(run: Run, name: str):
    code, out, _ = run(*name.split(), "--help")
    assert code == 0
    assert "Usage:" in out


@pytest.mark.parametrize("name", OF_A_MESH)
def test_every_command_refuses_what_it_does_not_know(run: Run, name: str):
    code, out, err = run(*name.split(), "--nonsense")
    assert (code, out) == (Exit.USAGE, "")
    (said,) = err.splitlines()
    assert "--nonsense" in said or "missing" in said
    assert said.endswith(f"See `meshctl {name} --help`.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nope",), "no such command 'nope'. Did you mean"),
        (("connect",), "missing argument 'CLUSTER'"),
        (("connect", "a", "b", "--timeout", "-5"), "'--timeout': expected a number from 0 on"),
        (("connect", "a", "b", "--timeout", "soon"), "'--timeout': expected seconds, or a number"),
        (("status", "--interval", "nan"), "'--interval': expected a number from 0 on"),
        (("token", "create", "c", "--hours", "inf"), "'--hours': expected a number from 0 on"),
        (("kvstore", "list", "--limit", "0"), "'--limit': "),
        (("status", "-o", "yaml"), "'yaml' is not one of 'table', 'json'"),
        (("plan", "caf\udce9"), "is not text in UTF-8"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(dead: Dead, words: list[str], said: str):
    code, out, err = dead.run(*words)
    assert (code, out) == (Exit.USAGE, "")
    (line,) = err.splitlines()
    assert said in line


def test_a_group_of_commands_alone_says_which_there_are(run: Run):
    code, out, err = run("ca")
    assert (code, err) == (Exit.USAGE, "")
    assert "rotate" in out


def test_the_mesh_may_be_named_before_the_command(dead: Dead, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MESHCTL_MESH")
    _, out, err = dead.run("--mesh", "mesh.yaml", "plan", "a", "b")
    assert "APISERVER_SILENT" in out, err
    code, _, err = dead.run("--mesh", "mesh.yaml", "--context", "x", "plan", "a", "b")
    assert (code, err) == (Exit.USAGE, "meshctl: give either --mesh or --context, not both.\n")


def test_a_report_that_has_nowhere_to_go_is_told_before_the_work(dead: Dead):
    code, out, err = dead.run("verify", "--junit", "/nonexistent/report.xml")
    assert (code, out) == (Exit.USAGE, "")
    assert "there is no directory /nonexistent" in err


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "a", "nowhere"),
        ("connect", "a", "nowhere"),
        ("disconnect", "nowhere", "a"),
        ("troubleshoot", "--cluster", "nowhere"),
        ("ca", "revoke", "nowhere", "a"),
        ("ca", "rotate", "nowhere"),
        ("token", "list", "--cluster", "nowhere"),
        ("endpoint", "list", "--cluster", "nowhere"),
        ("kvstore", "list", "--cluster", "nowhere"),
        ("audit", "--node", "a/nowhere"),
        ("verify", "--node", "nowhere/n1"),
        ("service", "list", "--node", "a/nowhere"),
    ],
)
def test_a_name_that_is_not_there_is_named_with_those_that_are(dead: Dead, words: list[str]):
    code, out, err = dead.run(*words)
    assert (code, out) == (Exit.USAGE, "")
    (said,) = err.strip().splitlines()
    assert "nowhere" in said
    assert " a" in said


def test_a_mesh_file_that_may_not_be_read_or_is_none_is_one_sentence(dead: Dead):
    path = dead.folder / "mesh.yaml"
    for content, said in (
        (b"clusters: [", "is not YAML"),
        (b"clusters: 7", "mesh.yaml: "),
        (b"clusters: \xff", "is not text in UTF-8"),
    ):
        path.write_bytes(content)
        code, _, err = dead.run("plan")
        assert code == Exit.FAILED
        assert len(err.strip().splitlines()) == 1
        assert said in err
    path.unlink()
    code, _, err = dead.run("plan")
    assert code == Exit.FAILED
    assert "No such file" in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(run: Run, monkeypatch: pytest.MonkeyPatch, shell: str):
    monkeypatch.setenv("_MESHCTL_COMPLETE", f"source_{shell}")
    _, out, _ = run()
    assert f"complete_{shell}" in out


def test_a_shell_is_told_the_commands(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("_MESHCTL_COMPLETE", "complete_bash")
    assert completed(run, monkeypatch, "meshctl sta") == ["status"]
    assert completed(run, monkeypatch, "meshctl ca ro") == ["rotate"]


def test_a_shell_is_told_the_clusters_and_nodes_of_the_mesh(
    dead: Dead, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("_MESHCTL_COMPLETE", "complete_bash")
    for line, wanted in (
        ("meshctl connect ", ["a", "b"]),
        ("meshctl connect a ", ["b"]),
        ("meshctl kvstore list --cluster ", ["a", "b"]),
        ("meshctl status --cluster b", ["b"]),
        ("meshctl verify --node b/", ["b/n1"]),
        ("meshctl explain service d/s --from a", ["a/n1"]),
        ("meshctl plan --mesh /nonexistent ", []),
    ):
        assert completed(dead.run, monkeypatch, line) == wanted, line


def completed(run: Run, monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    """What bash is told when Tab is pressed behind the line."""
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    return run()[1].split()
