"""Annotations that are understood, and each that is refused, with the reason."""

import pytest

from agent.services.policy import BadPolicy, MinLocal, Policy, parse

PREFIX = "service.clustermesh.io/"


def parsed(affinity: str = "none", **annotations: str) -> Policy:
    keys = {PREFIX + key.replace("_", "-"): value for key, value in annotations.items()}
    return parse(keys, affinity=affinity, own="cluster-a")


def test_a_service_without_annotations_has_no_rules() -> None:
    assert parsed() == Policy()


def test_what_is_written_is_what_is_meant() -> None:
    assert parsed(weights="local=80, cluster-b = 20 ,*=0").weights == {
        "local": 80,
        "cluster-b": 20,
        "*": 0,
    }
    assert parsed(failover="local, cluster-b,*").failover == ("local", "cluster-b", "*")
    assert parsed(min_local="3").min_local == MinLocal(3, percent=False)
    assert parsed(min_local=" 30% ").min_local == MinLocal(30, percent=True)


def test_the_own_cluster_may_be_called_by_its_name() -> None:
    assert parsed(weights="cluster-a=1").weights == {"local": 1}
    assert parsed(failover="cluster-b,cluster-a").failover == ("cluster-b", "local")


def test_unlisted_clusters_weigh_100() -> None:
    policy = parsed(weights="local=50")
    assert [policy.weight(name) for name in ("local", "cluster-b")] == [50, 100]


def test_a_part_of_the_known_endpoints_is_rounded_up_and_never_nothing() -> None:
    assert [MinLocal(30, percent=True).needed(known) for known in (0, 1, 3, 4, 10)] == [
        1,
        1,
        1,
        2,
        3,
    ]


REFUSED = [
    ({"weigths": "local=1"}, "none", "weigths: there is no such annotation"),
    ({"weights": "local"}, "none", "weights: 'local', expected CLUSTER=NUMBER"),
    ({"weights": "local=-1"}, "none", "weights: 'local=-1', expected CLUSTER=NUMBER"),
    ({"weights": "local=99999"}, "none", "with a number of 0 to 10000"),
    ({"weights": "local=1,local=2"}, "none", "weights: local has two weights"),
    ({"weights": "local=1,cluster-a=2"}, "none", "weights: cluster-a has two weights"),
    ({"weights": "local=1,"}, "none", "has an empty part"),
    ({"weights": ""}, "none", "has an empty part"),
    ({"weights": "Cluster_B=1"}, "none", "'Cluster_B', expected a cluster's name"),
    ({"failover": "local,local"}, "none", "failover: local is named twice"),
    ({"failover": "*,*"}, "none", "failover: * is named twice"),
    ({"failover": ""}, "none", "has an empty part"),
    ({"min_local": "0"}, "none", "min-local: '0', expected a number from 1"),
    ({"min_local": "101%"}, "none", "or 1% to 100%"),
    ({"min_local": "three"}, "none", "min-local: 'three', expected"),
    ({"min_local": "3"}, "remote", "min-local: contradicts affinity remote"),
    ({"min_local": "3", "weights": "local=1"}, "none", "local contradicts"),
]


@pytest.mark.parametrize(("annotations", "affinity", "reason"), REFUSED)
def test_what_cannot_be_understood_is_refused_with_a_reason(
    annotations: dict[str, str], affinity: str, reason: str
) -> None:
    with pytest.raises(BadPolicy) as refused:
        parsed(affinity, **annotations)
    assert reason in str(refused.value)


def test_annotations_of_others_are_not_ours_to_judge() -> None:
    assert parse({"service.cilium.io/global": "maybe"}, affinity="none", own="a") == Policy()
