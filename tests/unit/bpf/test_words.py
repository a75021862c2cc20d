"""What operators read: counters have names, missing features a way out."""

import re
from enum import IntEnum

import pytest

from bpf.build import SOURCES
from bpf.counters import LINES, REASONS, Direction, File, Line, Reason
from bpf.errors import MapFullError, PinMismatchError
from bpf.features import FEATURES, OLDEST_KERNEL, Feature, explain, missing


@pytest.mark.parametrize(
    ("name", "prefix", "twin"),
    [
        ("reason", "", Reason),
        ("direction", "", Direction),
        ("file", "FILE_", File),
        ("line", "LINE_", Line),
    ],
)
def test_counters_have_the_numbers_of_the_programs(name: str, prefix: str, twin: type[IntEnum]):
    source = (SOURCES / "include" / "metrics.h").read_text()
    body = re.search(rf"enum {name} {{(.*?)}};", source, re.DOTALL)
    assert body
    ours = {word.removeprefix(prefix): int(n) for word, n in re.findall(r"(\w+) = (\d+)", body[1])}
    assert ours == {member.name: member.value for member in twin}


def test_every_counter_has_words():
    assert set(REASONS) == set(Reason)
    assert set(LINES) == set(Line)


def test_a_missing_feature_is_said_with_the_kernel_that_has_it():
    lacking = missing([Feature("x", (5, 7), lambda: False), Feature("y", (5, 17), lambda: False)])
    assert explain(lacking, "5.4.0") == (
        "the kernel 5.4.0 lacks x (Linux 5.7), y (Linux 5.17): boot Linux 5.17 or newer, "
        "or leave this node out of the mesh"
    )


def test_features_that_are_there_are_not_missing():
    assert missing([Feature("x", (5, 7), lambda: True)]) == []


def test_the_oldest_kernel_has_every_feature():
    assert max(feature.since for feature in FEATURES) == OLDEST_KERNEL


def test_errors_are_sentences():
    assert str(MapFullError("cilium_ipcache", 64)) == (
        "map cilium_ipcache is full: it has room for 64 entries"
    )
    mismatch = PinMismatchError("/sys/fs/bpf/clustermesh", ["a: room is 1, configured 2", "b"])
    assert "differ from what is configured: a: room is 1, configured 2; b." in str(mismatch)
