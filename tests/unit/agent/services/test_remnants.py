"""A restart while a peer cannot be reached: the maps and the checkpoint together know the peer."""

import pytest

from bpf.layout_lb import ServiceKey
from clustermesh.addresses import packed
from clustermesh.keys import Kind
from clustermesh.model import SliceEndpoint
from tests.support import lb
from tests.support.mesh import OWN, VIP, Agent, offer, service, slice_of

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


@pytest.mark.parametrize("form", [Kind.SERVICES, Kind.ENDPOINT_SLICES])
def test_a_backend_that_went_after_the_checkpoint_was_written_does_not_come_back(form: Kind):
    def told(agent: Agent, *addresses: str) -> Agent:
        if form is Kind.SERVICES:
            return agent.remote(offer("cluster-b", *addresses))
        there = slice_of("cluster-b", "web-1", SliceEndpoint(addresses))
        return agent.tell("cluster-b", form, {"shop/web-1": there})

    kinds = (Kind.NODES, Kind.IPS, form)
    agent = told(Agent().expect("cluster-b").local(service()), "10.2.0.1").synced(OWN)
    maps = agent.synced("cluster-b", kinds=kinds).settle().maps
    again = told(Agent(maps).expect("cluster-b"), "10.2.0.1", "10.2.0.2")
    again.dataplane.unconfirmed("cluster-b")
    again.local(service()).synced(OWN).settle()
    assert lb.where(maps, VIP, 80) == {"10.2.0.1:8080"}
    assert again.dataplane.map_writes == 0
    # what the peer says itself counts at once, before its whole list is believed
    told(again, "10.2.0.2").settle()
    assert lb.where(maps, VIP, 80) == {"10.2.0.2:8080"}


def test_of_a_frontend_that_was_left_half_made_the_checkpoint_knows_the_rest():
    maps = Agent().expect("cluster-b").local(service()).remote(
        offer("cluster-b", "10.2.0.1", "10.2.0.2")
    ).synced(OWN, "cluster-b").settle().maps  # fmt: skip
    maps.services4.drop_many([ServiceKey(packed(VIP), 80, 6, slot=2).pack()])
    again = Agent(maps).expect("cluster-b").remote(offer("cluster-b", "10.2.0.1", "10.2.0.2"))
    again.dataplane.unconfirmed("cluster-b")
    again.local(service()).synced(OWN).settle()
    assert lb.where(maps, VIP, 80) == BOTH


def test_the_peers_own_word_ends_what_only_the_maps_remember():
    maps = Agent().expect("cluster-b").local(service()).remote(
        offer("cluster-b", "10.2.0.1", "10.2.0.2")
    ).synced(OWN, "cluster-b").settle().maps  # fmt: skip

    agent = Agent(maps).expect("cluster-b").local(service()).synced(OWN)
    agent.remote(offer("cluster-b", "10.2.0.1")).synced("cluster-b").settle()

    assert lb.where(maps, VIP, 80) == {"10.2.0.1:8080"}
