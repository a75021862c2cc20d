"""What starts a real API server, tried with a stand-in, and what it says when that fails."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.support.kube import manifests as make
from tests.support.kube.follow import following
from tests.support.kube.kubeserver import READER, READER_TOKEN, running
from tests.support.kube.real import assets, real_kube

ROOT = Path(__file__).parents[3]


def program(folder: Path, text: str) -> Path:
    path = folder / "kube-apiserver"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.delenv("TEST_ASSET_ETCD", raising=False)
    start = f'cd "{ROOT}" && exec "{sys.executable}" -m tests.support.kube.standin "$@"'
    path = program(tmp_path, start)
    monkeypatch.setenv("TEST_ASSET_KUBE_APISERVER", str(path))
    return path


async def test_it_is_started_stopped_and_started_without_its_past(
    standin: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "kube"
    folder.mkdir()
    async with running(real_kube, folder) as kube:
        await kube.admin.apply(make.service("front"), *make.CILIUM)
        rules = make.cluster_role("reader", READER, ("", "services", "list watch"))
        await kube.admin.apply(*rules)
        kube.kubeconfig("reader", token=READER_TOKEN)
        async with following(kube.kubeconfig()) as sink:
            await sink.until(lambda: sink.complete)
            assert {each.name for each in sink.objects} >= {"front"}
            await kube.server.lose_history()
            await kube.admin.apply(make.service("back"))
            await sink.until(lambda: {each.name for each in sink.objects} >= {"front", "back"})
            await sink.until(lambda: not sink.troubles)
            assert sink.removed == []


async def test_one_that_ends_says_why(standin: Path, tmp_path: Path) -> None:
    program(tmp_path, "echo unknown flag: --secure-port >&2; exit 3")
    with pytest.raises(AssertionError, match="unknown flag: --secure-port"):
        async with running(real_kube, tmp_path):
            pass


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({}, None),
        ({"KUBEBUILDER_ASSETS": "/nowhere"}, "/nowhere/kube-apiserver"),
        ({"TEST_ASSET_KUBE_APISERVER": "/nowhere"}, "/nowhere"),
    ],
)
def test_a_variable_that_names_nothing_is_an_error(env: dict[str, str], named: str | None) -> None:
    if named is None:
        assert assets(env) is None
        return
    with pytest.raises(RuntimeError, match=f"{named} is no program"):
        assets({"PATH": "/usr/bin:/bin", **env})


def test_the_etcd_on_path_does_where_none_is_named(tmp_path: Path) -> None:
    apiserver = program(tmp_path, "")
    found = assets({"KUBEBUILDER_ASSETS": str(tmp_path), "PATH": "/usr/bin:/usr/local/bin:/bin"})
    assert found is not None
    assert found.apiserver == apiserver
    assert str(found.etcd) == shutil.which("etcd", path="/usr/bin:/usr/local/bin:/bin")
