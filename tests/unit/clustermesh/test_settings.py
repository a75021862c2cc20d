"""Settings come from a file, the environment and flags, and each fault is one sentence."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from clustermesh.settings import SettingsError, about, load, seconds, text


class Example(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    cluster_name: Annotated[str, text("name of this cluster", pattern="^[a-z]+$")]
    cluster_id: Annotated[int, about("number of this cluster", ge=1, le=255)]
    lease_ttl: Annotated[float, seconds("life of keys without us", ge=1)] = 900.0
    state_dir: Annotated[Path | None, about("where state is kept")] = None
    replace: Annotated[bool, about("stand in for kube-proxy")] = False
    source: Annotated[Literal["files", "api"], about("where objects come from")] = "files"
    extra: Annotated[tuple[str, ...], about("some words")] = ()

    def __post_init__(self) -> None:
        if self.cluster_name == "default":
            raise ValueError("cluster-name: `default` is not a name")


REQUIRED = ("--cluster-name=a", "--cluster-id=3")


def loaded(*argv: str, **env: str) -> Example:
    return load(Example, argv, program="example", summary="An example.", env=env)


def fault(*argv: str, **env: str) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(*argv, **env)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("cluster-name: file\ncluster-id: 1\nlease-ttl: 10\nextra: [x, y]\n")
    got = loaded(
        f"--config={file}",
        "--cluster-name=flag",
        CLUSTERMESH_CLUSTER_NAME="env",
        CLUSTERMESH_CLUSTER_ID="2",
    )
    assert (got.cluster_name, got.cluster_id, got.lease_ttl) == ("flag", 2, 10.0)
    assert got.extra == ("x", "y")


def test_text_becomes_the_type_of_the_field() -> None:
    got = loaded(*REQUIRED, "--state-dir=/a", "--replace", "--extra=p,q", "--lease-ttl=15m")
    assert got.state_dir == Path("/a")
    assert got.replace is True
    assert got.extra == ("p", "q")
    assert got.lease_ttl == 900.0
    assert loaded(*REQUIRED, "--no-replace", CLUSTERMESH_REPLACE="true").replace is False
    assert loaded(*REQUIRED, CLUSTERMESH_LEASE_TTL="1500ms").lease_ttl == 1.5


def test_a_missing_setting_is_named_in_all_its_places() -> None:
    assert fault("--cluster-name=a") == (
        "--cluster-id is required (number of this cluster); it can also be set as "
        "CLUSTERMESH_CLUSTER_ID, or as cluster-id in the file named by --config"
    )


@pytest.mark.parametrize(
    ("argv", "env", "sentence"),
    [
        (["--cluster-name=A", "--cluster-id=3"], {}, "--cluster-name: expected `str` matching"),
        (["--cluster-name=a", "--cluster-id=x"], {}, "--cluster-id: expected `int`, found 'x'"),
        (["--cluster-name=a", "--cluster-id=256"], {}, "--cluster-id: expected `int` <= 255"),
        (["--cluster-name=default", "--cluster-id=3"], {}, "cluster-name: `default` is not a"),
        ([*REQUIRED, "--state-dir="], {}, "--state-dir: expected a path, found ''"),
        ([*REQUIRED, "--lease-ttl=5y"], {}, "--lease-ttl: expected seconds, or a number with ms"),
        ([*REQUIRED, "--source=x"], {}, "--source: expected one of api, files, found 'x'"),
        ([*REQUIRED, "--clusterid=3"], {}, "unknown flag --clusterid; did you mean --cluster-id?"),
        ([*REQUIRED, "--zzz"], {}, "unknown flag --zzz; --help lists them"),
        ([*REQUIRED, "cleanup"], {}, "unexpected argument 'cleanup'; settings are flags"),
        ([*REQUIRED, "--lease-ttl=nan"], {}, "--lease-ttl: expected `float` >= 1.0, found 'nan'"),
        ([*REQUIRED, "--lease-ttl=inf"], {}, "--lease-ttl: expected a number, found 'inf'"),
        ([*REQUIRED, "--state-dir=/a\udcff"], {}, "--state-dir: expected printable text in UTF-8"),
        (REQUIRED, {"CLUSTERMESH_LEASE_TTL": ""}, "CLUSTERMESH_LEASE_TTL: expected seconds"),
        (REQUIRED, {"CLUSTERMESH_LEASE_TTL": "0"}, "CLUSTERMESH_LEASE_TTL: expected `float` >= 1"),
        (REQUIRED, {"CLUSTERMESH_LEASE_TLT": "9"}, "unknown variable CLUSTERMESH_LEASE_TLT; did"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(
    argv: list[str], env: dict[str, str], sentence: str
) -> None:
    assert fault(*argv, **env).startswith(sentence)


def test_variables_that_kubernetes_makes_of_a_service_are_let_pass() -> None:
    loaded(*REQUIRED, CLUSTERMESH_APISERVER_PORT_2379_TCP="tcp://10.0.0.1:2379")
    loaded(*REQUIRED, CLUSTERMESH_APISERVER_SERVICE_HOST="10.0.0.1")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("cluster-nam: a", "unknown setting `cluster-nam`; did you mean `cluster-name`?"),
        ("zzz: a", "unknown setting `zzz`; known are cluster-id, cluster-name"),
        ("- a", "expected a mapping of settings, found a list"),
        ("a: [", "not YAML"),
        ("lease-ttl: .inf", "lease-ttl: expected a number, found inf"),
        ("cluster-name: 3", "cluster-name: expected `str`, found 3"),
        ("lease-ttl: [1]", "lease-ttl: expected `float`, found [1]"),
        ("extra: [1]", "extra: expected `str`, found [1]"),
    ],
)
def test_a_wrong_file_is_named_with_its_place(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    message = fault(
        "--cluster-id=3", f"--config={file}", *([] if "name: 3" in content else [REQUIRED[0]])
    )
    assert message.startswith(str(file))
    assert sentence in message


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    assert "cannot read the settings file" in fault(*REQUIRED, f"--config={tmp_path}/none")


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        loaded("--help")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for flag in (
        "--cluster-name",
        "--lease-ttl SECONDS",
        "--no-replace",
        "life of keys without us",
    ):
        assert flag in shown
    for told in ("(required)", "--cluster-id NUMBER", "--extra LIST", "CLUSTERMESH_SOME_THING"):
        assert told in " ".join(shown.split())
    assert len(shown.partition("options:")[0].splitlines()) < 8, "the flags are listed once"
