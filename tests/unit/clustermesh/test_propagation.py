"""What arrivals of probes say, clocks that differ included."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustermesh.checks import BadFact
from clustermesh.keys import Layout
from clustermesh.propagation import (
    NANOSECONDS,
    WINDOW,
    Arrivals,
    Probe,
    clocks_apart,
    decode,
    encode,
    key,
    percentile,
)
from clustermesh.status import Propagation

START = 1_800_000_000 * NANOSECONDS


def arrived(delays: list[float], *, skew: float = 0.0, run: str = "r") -> Arrivals:
    """Probes a second apart that took so long, by a reader whose clock is ahead by ``skew``."""
    found = Arrivals()
    for seq, delay in enumerate([0.0, *delays]):
        sent = START + seq * NANOSECONDS
        found.take(Probe(run, seq, sent), sent + round((delay + skew) * NANOSECONDS), seq)
    return found


def told(found: Arrivals, round_trip: float | None = None) -> Propagation:
    figures = found.told(1000.0, round_trip)
    assert figures is not None
    return figures


def test_the_key_lies_where_peers_may_read_and_no_kind_is():
    assert key(Layout.STATE, "paris") == "cilium/state/clustermesh-probe/v1/paris/latest"
    assert key(Layout.CACHE, "paris") == "cilium/cache/clustermesh-probe/v1/paris/latest"


def test_a_probe_survives_the_way():
    probe = Probe("0123", 7, START)
    assert decode(encode(probe)) == probe


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b'{"run":"","seq":1,"sent":1}', b'{"run":"r","seq":-1,"sent":1}',
     b'{"run":"r","seq":1,"sent":1e400}', b'{"run":"r","seq":1,"sent":99999999999999999999999}'],
)  # fmt: skip
def test_a_forged_probe_is_refused(value: bytes):
    with pytest.raises(BadFact):
        decode(value)


def test_the_first_of_a_life_is_no_sample():
    found = Arrivals()
    assert found.told(0.0, None) is None
    found.take(Probe("r", 5, START), START + 3600 * NANOSECONDS, 10.0)
    figures = told(found)
    assert (figures.samples, figures.p50, figures.age) == (0, None, 990.0)
    found.take(Probe("other", 1, START), START + 7200 * NANOSECONDS, 20.0)
    assert told(found).samples == 0


def test_figures_are_those_of_the_window():
    figures = told(arrived([9.0] * 50 + [0.001 * n for n in range(1, WINDOW + 1)]))
    assert figures.samples == WINDOW
    assert figures.p50 == pytest.approx(0.064)
    assert figures.p99 == pytest.approx(0.127)


def test_the_same_probe_again_and_an_older_one_say_nothing():
    found = arrived([0.1, 0.1])
    assert not found.is_news(Probe("r", 2, START))
    found.take(Probe("r", 1, START), START + 99 * NANOSECONDS, 9.0)
    assert told(found).p99 == pytest.approx(0.1)


def test_beats_that_nobody_saw_are_counted():
    found = arrived([0.1])
    found.take(Probe("r", 5, START), START + NANOSECONDS, 9.0)
    assert told(found).missed == 3


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=200), st.floats(-1e6, 1e6))
def test_no_figure_is_ever_negative(delays: list[float], skew: float):
    figures = told(arrived(delays, skew=skew), round_trip=0.002)
    assert figures.p50 is not None
    assert figures.p99 is not None
    assert 0.001 - 1e-6 <= figures.p50 <= figures.p99


def test_a_writer_ahead_is_seen_by_what_arrives_before_it_was_sent():
    figures = told(arrived([0.010, 0.012, 0.030], skew=-5.0), round_trip=0.020)
    assert figures.ahead == pytest.approx(5.0)
    assert figures.p50 == pytest.approx(0.012)


@pytest.mark.parametrize("skew", [-3.0, -0.004, 0.0, 0.004, 3.0])
def test_both_ways_together_tell_how_far_clocks_are_apart(skew: float):
    there = told(arrived([0.010] * 5, skew=skew), round_trip=0.002)
    back = told(arrived([0.010] * 5, skew=-skew), round_trip=0.002)
    assert clocks_apart(there, back) == pytest.approx(skew, abs=1e-6)


def test_one_way_alone_tells_nothing_of_clocks():
    assert clocks_apart(told(arrived([0.01])), None) is None
    assert clocks_apart(told(arrived([])), told(arrived([0.01]))) is None


def test_percentiles_are_members():
    assert percentile([], 0.5) is None
    assert percentile([1.0], 0.99) == 1.0
    assert percentile([1.0, 2.0], 0.5) == 1.0
    assert percentile([1.0, 2.0], 0.99) == 2.0
