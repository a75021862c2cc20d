"""Numbers: kept while needed, never reused in haste, rolled over at the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.services.ids import Ids, NoIdLeft


def ids(last: int = 5) -> Ids[str]:
    return Ids(1, last)


def test_a_key_keeps_its_number() -> None:
    numbers = ids()
    assert [numbers.of("a"), numbers.of("b"), numbers.of("a")] == [1, 2, 1]


def test_a_released_number_is_not_given_out_before_it_may_be() -> None:
    numbers = ids(last=2)
    first = numbers.of("a")
    numbers.of("b")
    assert numbers.release("a") == first
    with pytest.raises(NoIdLeft, match="all of the 2 ids from 1 are taken"):
        numbers.of("c")
    numbers.reuse([first])
    assert numbers.of("c") == first


def test_numbers_go_round_before_any_is_given_out_twice() -> None:
    numbers = ids(last=3)
    for key, number in zip("abc", (1, 2, 3), strict=True):
        assert numbers.of(key) == number
        numbers.release(key)
        numbers.reuse([number])
    assert numbers.of("d") == 1


def test_adopted_numbers_are_kept_and_taken_ones_left_alone() -> None:
    numbers = ids()
    numbers.adopt({"a": 3}, taken=[1, 4])
    assert numbers.of("a") == 3
    assert [numbers.of("b"), numbers.of("c")] == [5, 2]


def test_releasing_what_has_none_is_nothing() -> None:
    assert ids().release("a") is None
    assert ids().get("a") is None


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=60))
def test_no_two_keys_share_a_number(steps: list[tuple[str, bool]]) -> None:
    numbers = ids(last=8)
    held: dict[str, int] = {}
    for key, wanted in steps:
        if wanted:
            held[key] = numbers.of(key)
        elif (number := numbers.release(key)) is not None:
            numbers.reuse([number])
            held.pop(key)
        assert len(set(held.values())) == len(held) == len(numbers)
