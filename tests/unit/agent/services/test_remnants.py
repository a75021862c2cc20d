"""A restart while a peer cannot be reached: the maps and the checkpoint together know the peer."""

from tests.support import lb
from tests.support.mesh import OWN, VIP, Agent, offer, service

BOTH = {"10.2.0.1:8080", "10.2.0.2:8080"}


def test_a_backend_newer_than_the_checkpoint_survives_the_restart():
    maps = Agent().expect("cluster-b").local(service()).remote(
        offer("cluster-b", "10.2.0.1", "10.2.0.2")
    ).synced(OWN, "cluster-b").settle().maps  # fmt: skip

    agent = Agent(maps).expect("cluster-b").remote(offer("cluster-b", "10.2.0.1"))
    agent.dataplane.unconfirmed("cluster-b")
    agent.local(service()).synced(OWN).settle()

    assert lb.where(maps, VIP, 80) == BOTH
    assert agent.dataplane.map_writes == 0


def test_the_peers_own_word_ends_what_only_the_maps_remember():
    maps = Agent().expect("cluster-b").local(service()).remote(
        offer("cluster-b", "10.2.0.1", "10.2.0.2")
    ).synced(OWN, "cluster-b").settle().maps  # fmt: skip

    agent = Agent(maps).expect("cluster-b").local(service()).synced(OWN)
    agent.remote(offer("cluster-b", "10.2.0.1")).synced("cluster-b").settle()

    assert lb.where(maps, VIP, 80) == {"10.2.0.1:8080"}
