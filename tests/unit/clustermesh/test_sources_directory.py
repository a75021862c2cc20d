"""The directory source: what its files say is what is there, whoever writes them and however."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clustermesh.sources.directory import DirectorySettings, DirectorySource, kinds_in
from clustermesh.sources.objects import ObjectKind, Service
from clustermesh.sources.port import Removal
from tests.support.source_sink import MemorySink

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: web}}
spec: {{ports: [{{port: {port}}}]}}
"""


def service(name: str, port: object = 80) -> str:
    return SERVICE.format(name=name, port=port)


def several(*documents: str) -> str:
    return "---\n".join(documents)


def replace(path: Path, text: str) -> None:
    """As careful writers do: a complete file takes the old one's place."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def ports(sink: MemorySink) -> dict[str, int]:
    return {
        name.name: object_.spec.ports[0].port
        for name, object_ in sink.objects.items()
        if isinstance(object_, Service)
    }


@asynccontextmanager
async def following(path: Path, **times: float) -> AsyncIterator[MemorySink]:
    """The source at work. Yields once everything that was there has been told, or is missing."""
    settings = DirectorySettings(path=path, **{"retry": 0.02, **times})
    sink = MemorySink()
    source = DirectorySource(settings, frozenset(ObjectKind))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(source.run(sink))
        try:
            await sink.until(lambda: bool(sink.kinds_synced or sink.troubles))
            yield sink
        finally:
            task.cancel()


async def test_files_are_read_and_every_kind_is_told_to_be_synced(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(several(service("one"), service("two")), encoding="utf-8")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.json").write_text(
        '{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Namespace",'
        '"metadata":{"name":"web"}}]}',
        encoding="utf-8",
    )
    (tmp_path / ".hidden.yaml").write_text(service("hidden"), encoding="utf-8")
    (tmp_path / "notes.txt").write_text(service("notes"), encoding="utf-8")
    async with following(tmp_path) as sink:
        assert sink.names() == {"Service web/one", "Service web/two", "Namespace web"}
        assert sink.kinds_synced == set(ObjectKind)
        assert sink.refusals == {}


async def test_edits_replacements_and_removals_are_followed(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(service("one"), encoding="utf-8")
    async with following(tmp_path) as sink:
        file.write_text(service("one", 81), encoding="utf-8")
        await sink.until(lambda: ports(sink) == {"one": 81})
        replace(file, several(service("one", 82), service("two")))
        await sink.until(lambda: ports(sink) == {"one": 82, "two": 80})
        (tmp_path / "b.yaml").write_text(service("three"), encoding="utf-8")
        await sink.until(lambda: ports(sink) == {"one": 82, "two": 80, "three": 80})
        file.write_text(service("two"), encoding="utf-8")
        await sink.until(lambda: ports(sink) == {"two": 80, "three": 80})
        (tmp_path / "b.yaml").unlink()
        await sink.until(lambda: ports(sink) == {"two": 80})
        shutil.copytree(tmp_path, tmp_path / "copy")
        await sink.until(lambda: "copy/a.yaml document 1" in sink.refusals)


async def test_a_bad_document_is_named_and_keeps_its_last_good_version(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    replace(file, several(service("one"), service("two"), service("three")))
    async with following(tmp_path) as sink:
        replace(file, several(service("one", 81), service("two", "many"), service("three", 83)))
        await sink.until(lambda: bool(sink.refusals))
        assert sink.refusals == {
            "a.yaml document 2": "spec.ports[0].port: expected `int`, got `str`"
        }
        assert ports(sink) == {"one": 81, "two": 80, "three": 83}
        replace(file, several(service("one", 81), service("three", 83)))
        await sink.until(lambda: not sink.refusals)
        assert ports(sink) == {"one": 81, "three": 83}


async def test_what_a_syntax_error_hides_stays_and_its_neighbours_change(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    replace(file, several(service("one"), service("two")))
    async with following(tmp_path) as sink:
        replace(file, several("metadata: {name: one\n", service("two", 82)))
        await sink.until(lambda: bool(sink.refusals))
        assert sink.refusals["a.yaml document 1"].startswith("line ")
        assert "not YAML" in sink.refusals["a.yaml document 1"]
        assert ports(sink) == {"one": 80, "two": 82}
        file.unlink()
        await sink.until(lambda: not sink.refusals and not sink.objects)


async def test_the_first_file_by_name_wins_and_the_other_takes_over(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(service("one", 82), encoding="utf-8")
    async with following(tmp_path) as sink:
        replace(tmp_path / "a.yaml", service("one", 81))
        await sink.until(lambda: ports(sink) == {"one": 81})
        assert sink.refusals == {
            "b.yaml document 1": "Service web/one is also in a.yaml, which is used"
        }
        (tmp_path / "a.yaml").unlink()
        await sink.until(lambda: ports(sink) == {"one": 82})
        assert not any(isinstance(change, Removal) for change in sink.changes)
        assert sink.refusals == {}


async def test_a_file_that_is_being_written_loses_nothing(tmp_path: Path) -> None:
    """Cut to nothing and written again in pieces: at no moment is an object gone."""
    file = tmp_path / "a.yaml"
    file.write_text(several(service("one"), service("two")), encoding="utf-8")
    async with following(tmp_path, settle=2.0) as sink:
        with file.open("w", encoding="utf-8") as writer:
            await asyncio.sleep(0.05)
            writer.write(several(service("one", 81)))
            writer.flush()
            await sink.until(lambda: ports(sink)["one"] == 81)
            writer.write("---\nkind: Serv")
            writer.flush()
            await asyncio.sleep(0.05)
            writer.write("ice\n" + service("two", 82).replace("kind: Service\n", ""))
        await sink.until(lambda: ports(sink) == {"one": 81, "two": 82})
        assert not any(isinstance(change, Removal) for change in sink.changes)
        assert sink.refusals == {}


async def test_a_file_that_an_editor_moves_away_and_writes_anew_loses_nothing(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(service("one"), encoding="utf-8")
    async with following(tmp_path, linger=5.0) as sink:
        file.rename(tmp_path / "a.yaml~")
        await asyncio.sleep(0.05)
        file.write_text(service("one", 81), encoding="utf-8")
        await sink.until(lambda: ports(sink) == {"one": 81})
        assert not any(isinstance(change, Removal) for change in sink.changes)


async def test_a_mounted_configmap_is_swapped_as_a_whole(tmp_path: Path) -> None:
    for version, port in (("..v1", 81), ("..v2", 82)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.yaml").write_text(service("one", port), encoding="utf-8")
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    async with following(tmp_path) as sink:
        assert ports(sink) == {"one": 81}
        (tmp_path / "..data_tmp").symlink_to("..v2")
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")
        await sink.until(lambda: ports(sink) == {"one": 82})


async def test_a_directory_that_vanishes_takes_nothing_along(tmp_path: Path) -> None:
    root = tmp_path / "manifests"
    async with following(root) as sink:
        assert "cannot follow the manifests" in sink.troubles[None]
        assert not sink.kinds_synced
        root.mkdir()
        (root / "a.yaml").write_text(service("one"), encoding="utf-8")
        await sink.until(lambda: ports(sink) == {"one": 80} and not sink.troubles)
        root.rename(tmp_path / "elsewhere")
        await sink.until(lambda: bool(sink.troubles))
        assert ports(sink) == {"one": 80}
        root.mkdir()
        (root / "a.yaml").write_text(service("two"), encoding="utf-8")
        await sink.until(lambda: ports(sink) == {"two": 80} and not sink.troubles)


async def test_what_the_kernel_did_not_report_is_found_by_the_next_scan(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text(service("one"), encoding="utf-8")
    root = tmp_path / "manifests"
    root.mkdir()
    (root / "a.yaml").symlink_to(outside)
    async with following(root, rescan=0.05) as sink:
        outside.write_text(service("one", 81), encoding="utf-8")
        await sink.until(lambda: ports(sink) == {"one": 81})


async def test_an_edit_shows_soon(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(service("one", 1), encoding="utf-8")
    async with following(tmp_path) as sink:
        took = []
        for port in range(2, 12):
            started = time.perf_counter()
            replace(file, service("one", port))
            await sink.until(lambda wanted=port: ports(sink) == {"one": wanted})
            took.append(time.perf_counter() - started)
    print(f"edit to object, milliseconds: {sorted(round(each * 1000) for each in took)}")


def test_a_survey_says_what_is_there_and_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(several(service("one"), "kind: Service\n"), encoding="utf-8")
    kinds, problems = kinds_in(tmp_path)
    assert kinds == {ObjectKind.SERVICE}
    assert problems == [("a.yaml document 2", "apiVersion: missing, expected text such as v1")]
    with pytest.raises(OSError, match="missing"):
        kinds_in(tmp_path / "missing")
