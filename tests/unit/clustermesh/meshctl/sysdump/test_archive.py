"""An archive is attacked by the names and sizes that peers choose."""

import json
import os
import resource
import signal
import tarfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustermesh.meshctl.sysdump.archive import Archive, safe
from clustermesh.meshctl.sysdump.command import index, partial

HOSTILE = ("../../../etc/passwd", "..", ".", "", "/etc/shadow", "a/b", "a\\b", "\x00", "é" * 300,
           "-rf", "con\nfig", "...hidden", "C:\\x")  # fmt: skip


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        found = {}
        for member in tar.getmembers():
            assert member.isreg(), member
            assert member.mode == 0o600
            content = tar.extractfile(member)
            assert content is not None
            assert member.name not in found
            found[member.name] = content.read()
        return found


def test_no_name_leads_outside(tmp_path: Path):
    with Archive(tmp_path / "dump.tar.gz") as kept:
        for name in HOSTILE:
            kept.add(("clusters", name, name), b"x")
    found = members(tmp_path / "dump.tar.gz")
    assert len(found) == len(HOSTILE)
    for name in found:
        assert name.startswith("dump/clusters/")
        assert ".." not in name.split("/")
        assert not name.startswith("/")
    out = tmp_path / "out"
    careful = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Debian 12 has 3.11.2
    with tarfile.open(tmp_path / "dump.tar.gz") as tar:
        tar.extractall(out, **careful)  # noqa: S202 - of names that were looked at above
    assert not (tmp_path / "etc").exists()


@given(st.text(max_size=300))
def test_a_safe_name_is_one_component(name: str):
    made = safe(name)
    assert made
    assert "/" not in made
    assert not made.startswith(".")
    assert len(made) <= 100
    assert made.isascii()


def test_a_part_that_is_too_large_is_cut_and_marked(tmp_path: Path):
    with Archive(tmp_path / "d.tar.gz", part=10, whole=25) as kept:
        for number in range(4):
            kept.add((f"part{number}",), b"x" * 30)
    assert [(it.size, it.cut) for it in kept.parts] == [(10, 20), (10, 20), (5, 25), (0, 30)]
    assert sum(map(len, members(tmp_path / "d.tar.gz").values())) == 25


def test_what_is_missing_is_in_the_index_with_its_reason(tmp_path: Path):
    with Archive(tmp_path / "d.tar.gz") as kept:
        kept.add(("versions.json",), b"{}")
        kept.miss(("clusters", "a", "status.json"), "it does not answer; password: hunter2")
        kept.close_with(index(kept.parts))
    assert partial(kept.parts)
    told = json.loads(members(tmp_path / "d.tar.gz")["d/index.json"])
    assert told["partial"] is True
    assert [it["name"] for it in told["parts"]] == ["versions.json", "clusters/a/status.json"]
    assert "does not answer" in told["parts"][1]["missing"]
    assert "hunter2" not in json.dumps(told)


def test_secrets_do_not_come_in_by_content(tmp_path: Path):
    with Archive(tmp_path / "d.tar.gz") as kept:
        kept.add(("log",), b"password: hunter2\n")
    assert b"hunter2" not in members(tmp_path / "d.tar.gz")["d/log"]


def test_only_its_owner_reads_it_and_nothing_is_replaced(tmp_path: Path):
    path = tmp_path / "d.tar.gz"
    with Archive(path):
        pass
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        Archive(path)
    link = tmp_path / "link.tar.gz"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="File exists"):
        Archive(link)
    assert not (tmp_path / "elsewhere").exists()


def test_one_that_was_not_finished_is_not_left(tmp_path: Path):
    """Interrupted, or where the disk is full: a half is taken for nothing."""
    path = tmp_path / "d.tar.gz"
    with pytest.raises(KeyboardInterrupt), Archive(path):
        raise KeyboardInterrupt
    assert not path.exists()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="too large"), Archive(path) as kept:
            kept.add(("part",), os.urandom(64 << 10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not path.exists()


def test_one_that_was_cut_off_is_not_taken_for_whole(tmp_path: Path):
    """The table of all parts comes last: whoever has it has all of them."""
    path = tmp_path / "d.tar.gz"
    with Archive(path) as kept:
        for number in range(3):
            kept.add((f"part{number}",), os.urandom(2000))
        kept.close_with(index(kept.parts))
    assert list(members(path))[-1] == "d/index.json"
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:end])
        with pytest.raises((tarfile.TarError, EOFError, OSError, zlib.error)):
            members(path)
