"""Which files of the configuration directory are clusters (contract kvstore 5.1)."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from clustermesh.remotes import directory

GOOD = "endpoints:\n- https://192.0.2.5:2379\n"


def names(where: Path) -> list[str]:
    return sorted(directory.scan(where, own="home")[0])


def test_files_with_endpoints_are_clusters(tmp_path: Path) -> None:
    (tmp_path / "paris").write_text(GOOD)
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----")
    (tmp_path / "home").write_text(GOOD)
    (tmp_path / ".hidden").write_text(GOOD)
    (tmp_path / "folder").mkdir()
    assert names(tmp_path) == ["paris"]


@pytest.mark.parametrize("name", ["Paris", "par_is", "paris-", "x" * 33, "\\xff"])
def test_a_name_that_is_none_is_named_with_the_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name.replace("\\xff", "\udcff")).write_text(GOOD)
    (tmp_path / "paris").write_text(GOOD)
    files, problem = directory.scan(tmp_path, own="home")
    assert problem == ""
    assert files["paris"].config is not None
    assert files[name].config is None
    assert "rename it" in files[name].problem


def test_a_bad_file_is_named_with_the_field(tmp_path: Path) -> None:
    (tmp_path / "paris").write_text("endpoints: 5\n")
    file = directory.scan(tmp_path, own="home")[0]["paris"]
    assert file.config is None
    assert "endpoints" in file.problem
    assert str(tmp_path / "paris") in file.problem


@pytest.mark.parametrize(
    "content", ["a: 2001-99-99", "a: " + "[" * 5_000, "a: &a [*a]", "a: !!python/name:os.system"]
)
def test_no_content_stops_the_others_from_being_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "paris").write_text(GOOD)
    (tmp_path / "rome").write_text(f"{GOOD}{content}\n")
    assert directory.scan(tmp_path, own="home")[0]["paris"].config is not None


def test_only_content_counts(tmp_path: Path) -> None:
    path = tmp_path / "paris"
    path.write_text(GOOD)
    first = directory.scan(tmp_path, own="home")
    path.touch()
    assert directory.scan(tmp_path, own="home") == first
    path.write_text(GOOD + "# another\n")
    assert directory.scan(tmp_path, own="home") != first


def _rename(path: Path) -> None:
    path.rename(path.with_name("lyon"))


def _dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("..data/paris")


def _become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _become_a_link(path: Path) -> None:
    path.rename(path.with_name("..data"))
    path.symlink_to("..data")


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (_rename, ["lyon"]),
        (_dangle, []),
        (_become_a_folder, []),
        (_become_a_link, ["paris"]),
        (lambda path: path.rename(path.with_name("home")), []),
        (lambda path: path.rename(path.with_name("paris.bak")), ["paris.bak"]),
        (lambda path: path.write_text("endpoint: none\n"), []),
        (lambda path: path.write_text(""), []),
        (lambda path: path.write_bytes(b"endpoints: \xff"), ["paris"]),
        (lambda path: path.write_bytes(GOOD.encode() + b"#" * (1 << 20)), []),
        (lambda path: path.write_text("{endpoints: [}\n"), ["paris"]),
    ],
)
def test_what_becomes_of_a_file_is_what_is_configured(
    tmp_path: Path, change: Callable[[Path], object], left: list[str]
) -> None:
    path = tmp_path / "paris"
    path.write_text(GOOD)
    assert names(tmp_path) == ["paris"]
    change(path)
    assert names(tmp_path) == left
    for file in directory.scan(tmp_path, own="home")[0].values():
        assert (file.config is None) == bool(file.problem)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    files, problem = directory.scan(tmp_path / "none", own="home")
    assert files == {}
    assert "cannot be read" in problem


async def test_changes_are_followed(tmp_path: Path) -> None:
    where = tmp_path / "remotes"
    where.mkdir()
    async with asyncio.timeout(20):
        async with aclosing(directory.follow(where, own="home", interval=60)) as found:
            assert await anext(found) == ({}, "")
            (where / "paris").write_text(GOOD)
            files, _ = await anext(found)
            assert list(files) == ["paris"]
            (where / "paris").unlink()
            assert await anext(found) == ({}, "")


async def test_a_symbolic_link_that_is_swapped_is_a_change(tmp_path: Path) -> None:
    """How Kubernetes mounts a Secret: ``paris -> ..data/paris``, ``..data -> ..2026``."""
    where = tmp_path / "remotes"
    for version, port in (("..1", 2379), ("..2", 2380)):
        (where / version).mkdir(parents=True)
        (where / version / "paris").write_text(GOOD.replace("2379", str(port)))
    (where / "..data").symlink_to("..1")
    (where / "paris").symlink_to("..data/paris")
    async with asyncio.timeout(20):
        async with aclosing(directory.follow(where, own="home", interval=60)) as found:
            first, _ = await anext(found)
            (where / "..tmp").symlink_to("..2")
            (where / "..tmp").rename(where / "..data")
            second, _ = await anext(found)
            assert first["paris"].digest != second["paris"].digest


async def test_a_directory_that_comes_is_noticed(tmp_path: Path) -> None:
    where = tmp_path / "remotes"
    async with asyncio.timeout(20):
        async with aclosing(directory.follow(where, own="home", interval=60)) as found:
            assert "cannot be read" in (await anext(found))[1]
            where.mkdir()
            assert await anext(found) == ({}, "")


async def test_a_directory_that_goes_away_removes_nothing(tmp_path: Path) -> None:
    where = tmp_path / "remotes"
    where.mkdir()
    (where / "paris").write_text(GOOD)
    async with asyncio.timeout(20):
        async with aclosing(directory.follow(where, own="home", interval=0.02)) as found:
            assert list((await anext(found))[0]) == ["paris"]
            where.rename(tmp_path / "away")
            files, problem = await anext(found)
            assert list(files) == ["paris"]
            assert "cannot be read" in problem
