"""How old a cluster's word about a service is."""

from agent.services.ages import Ages


def test_an_age_counts_from_the_last_change():
    now = [100.0]
    ages = Ages(lambda: now[0])
    assert ages.age("b", "d/s") is None
    assert list(ages.changed("b", ["d/s"])) == ["d/s"]
    now[0] += 5
    ages.changed("a", ["d/s"])
    now[0] += 1
    assert (ages.age("a", "d/s"), ages.age("b", "d/s")) == (1, 6)
    ages.drain("b")
    assert ages.age("b", "d/s") is None
