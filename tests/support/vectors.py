"""The recordings of real Cilium components in tests/vectors."""

import json
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1] / "vectors"
APISERVER = ROOT / "cilium-1.17-apiserver"
MOCK = ROOT / "cilium-1.20-mock"
RECORDINGS = (
    APISERVER / "etcd.jsonl",
    APISERVER / "etcd-shared-only.jsonl",
    APISERVER / "etcd-max511.jsonl",
    APISERVER / "etcd-mcsapi.jsonl",
    MOCK / "etcd.jsonl",
)


class Record(NamedTuple):
    """One key as a real component wrote it."""

    key: str
    value: bytes
    lease: bool


def records(path: Path) -> list[Record]:
    """All keys of a recording, in the order of the file."""
    lines = (json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line)
    return [Record(line["key"], line["value"].encode(), line["lease"]) for line in lines]
