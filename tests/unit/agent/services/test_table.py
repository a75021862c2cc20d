"""The selection table: exact shares, few moves, the same everywhere."""

from collections import Counter
from ipaddress import IPv4Address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.services.table import quotas, table
from bpf.specs import TABLE_SIZES

weights = st.lists(st.integers(1, 10_000), min_size=1, max_size=60).map(tuple)


def names(count: int, seed: int = 1) -> tuple[bytes, ...]:
    """Distinct addresses, sorted as the agent sorts them."""
    numbers = Random(seed).sample(range(1 << 24), count)
    return tuple(sorted(IPv4Address((10 << 24) + number).packed for number in numbers))


def even(backends: tuple[bytes, ...], size: int) -> list[bytes]:
    """Which backend each entry picks when all weigh the same."""
    return [backends[n] for n in table(backends, tuple(quotas((1,) * len(backends), size)))]


@given(weights, st.sampled_from(TABLE_SIZES[:4]))
def test_shares_are_less_than_one_entry_off(weights: tuple[int, ...], size: int) -> None:
    given_ = quotas(weights, size)
    assert sum(given_) == size
    for weight, entries in zip(weights, given_, strict=True):
        assert abs(entries - weight * size / sum(weights)) < 1


@given(weights, st.integers(0, 1000))
def test_every_backend_has_exactly_its_quota(weights: tuple[int, ...], seed: int) -> None:
    backends = names(len(weights), seed)
    counts = Counter(table(backends, tuple(quotas(weights, 1021))))
    assert [counts[n] for n in range(len(weights))] == quotas(weights, 1021)


@pytest.mark.parametrize(("size", "most"), [(1021, 0.05), (16381, 0.01)])
def test_removing_one_of_25_moves_little_else(size: int, most: float) -> None:
    for seed in range(6):
        backends = names(25, seed)
        before = even(backends, size)
        for gone in backends[:: 25 if size > 2000 else 5]:
            after = even(tuple(b for b in backends if b != gone), size)
            moved = sum(a != b for a, b in zip(before, after, strict=True) if a != gone)
            assert moved <= most * size, f"{moved} entries of other backends moved"


@given(st.integers(1, 40), st.integers(0, 1000))
def test_a_returning_backend_finds_its_entries_again(count: int, seed: int) -> None:
    backends = names(count, seed)
    first = even(backends, 251)
    table.cache_clear()
    assert even(backends, 251) == first


def test_the_table_of_these_backends_is_this_one() -> None:
    """All nodes, all releases: changing the algorithm moves every connection of every mesh."""
    backends = tuple(IPv4Address(f"10.0.0.{n}").packed for n in (1, 2, 3))
    entries = table(backends, (84, 84, 83))
    assert list(entries[:16]) == [1, 2, 0, 0, 2, 2, 1, 0, 0, 0, 1, 2, 1, 0, 0, 0]


def test_one_backend_has_all_entries() -> None:
    assert set(table(names(1), (1021,))) == {0}


def test_more_backends_than_entries_share_what_there_is() -> None:
    backends = names(600)
    counts = Counter(table(backends, tuple(quotas((1,) * 600, 251))))
    assert len(counts) == 251
    assert set(counts.values()) == {1}
