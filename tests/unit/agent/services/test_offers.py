"""One compact shape for endpoints, whatever they were written in."""

import pytest
from msgspec.structs import replace

from agent.services import offers
from agent.services.merge import candidates
from agent.services.offers import Condition, Group, OfferedPort
from clustermesh.addresses import packed
from clustermesh.local import Frontend, LocalBackend, LocalService, NamedPort
from clustermesh.model import Port, SliceEndpoint, SlicePort
from tests.support.mesh import backend, offer, service, slice_of

HTTP = (OfferedPort("http", 6, 8080),)
B1, B2 = bytes([10, 2, 0, 1]), bytes([10, 2, 0, 2])

CONDITIONS = [  # ready, serving, terminating
    (True, True, False, Condition.ACTIVE),
    (True, True, True, Condition.ACTIVE),  # publishNotReadyAddresses: ready is what counts
    (False, True, False, Condition.ACTIVE),
    (False, True, True, Condition.TERMINATING),
    (False, False, True, Condition.NOT_READY),
    (False, False, False, Condition.NOT_READY),
]


@pytest.mark.parametrize(("ready", "serving", "terminating", "expected"), CONDITIONS)
def test_conditions_of_local_endpoints(
    ready: bool, serving: bool, terminating: bool, expected: Condition
) -> None:
    there = LocalBackend(
        address="10.1.0.1",
        ports=(NamedPort("http", "TCP", 8080),),
        ready=ready,
        serving=serving,
        terminating=terminating,
    )
    made = offers.of_local(LocalService(backends=(there,)), cluster="cluster-a", node="a1")
    assert [group.condition for group in made.groups] == [expected]


def test_endpoints_that_differ_by_address_only_share_a_group() -> None:
    made = offers.of_remote(offer("cluster-b", "10.2.0.2", "10.2.0.1"))
    assert made is not None
    assert made.groups == (Group(HTTP, Condition.ACTIVE, False, (B1, B2)),)
    assert (made.cluster, made.cluster_id, made.size) == ("cluster-b", 2, 2)


def test_local_endpoints_say_whether_they_are_here() -> None:
    there = service("10.1.0.1", backend("10.1.0.2", node="a2"))
    made = offers.of_local(there, cluster="cluster-a", node="a1")
    assert [(group.here, len(group.addresses)) for group in made.groups] == [(False, 1), (True, 1)]


def test_what_is_not_shared_is_no_offer() -> None:
    assert offers.of_remote(offer("cluster-b", "10.2.0.1", shared=False)) is None


def test_ports_of_unknown_protocols_are_passed_over() -> None:
    ports = {"a": Port("ANY", 1), "b": Port("SCTP", 7), "c": Port("TCP", 0)}
    made = offers.of_remote(offer("cluster-b", "10.2.0.1", ports=ports))
    assert made is not None
    assert made.groups[0].ports == (OfferedPort("b", 132, 7),)


TOLD = [  # ready, serving, terminating; None: not known
    (None, None, None, Condition.ACTIVE),
    (None, False, True, Condition.ACTIVE),
    (True, None, True, Condition.ACTIVE),
    (False, True, None, Condition.ACTIVE),
    (False, True, False, Condition.ACTIVE),
    (False, True, True, Condition.TERMINATING),
    (False, None, None, None),
    (False, None, True, None),
    (False, False, True, None),
]


@pytest.mark.parametrize(("ready", "serving", "terminating", "expected"), TOLD)
def test_conditions_of_remote_slices(
    ready: bool | None, serving: bool | None, terminating: bool | None, expected: Condition | None
) -> None:
    endpoint = SliceEndpoint(("10.2.0.1",), ready, serving, terminating)
    made = offers.of_slices([slice_of("cluster-b", "w-1", endpoint)])
    assert made is not None
    assert [group.condition for group in made.groups] == ([] if expected is None else [expected])


PORTS = [  # protocol and number as a slice tells them, and what is offered
    ("TCP", 8080, (6, 8080)),
    ("UDP", 53, (17, 53)),
    ("SCTP", 65535, (132, 65535)),
    ("TCP", 65536 + 8080, (6, 8080)),  # the API server lets it pass; its last 16 bits count
    ("TCP", -1, (6, 65535)),
    ("TCP", 65536, None),
    ("TCP", 0, None),
    ("TCP", None, None),  # all ports: nowhere to send to
    ("ICMP", 8, None),
    ("tcp", 8080, None),
    ("", 8080, None),
]


@pytest.mark.parametrize(("protocol", "number", "expected"), PORTS)
def test_ports_of_remote_slices(
    protocol: str, number: int | None, expected: tuple[int, int] | None
) -> None:
    there = replace(
        slice_of("cluster-b", "w-1", SliceEndpoint(("10.2.0.1",))),
        ports=(SlicePort("http", protocol, number),),
    )
    made = offers.of_slices([there])
    assert made is not None
    found = [(port.proto, port.port) for group in made.groups for port in group.ports]
    assert found == ([] if expected is None else [expected])


def test_slices_of_one_service_are_one_offer() -> None:
    first = slice_of("cluster-b", "w-1", SliceEndpoint(("10.2.0.1",)))
    second = slice_of(
        "cluster-b",
        "w-2",
        SliceEndpoint(("10.2.0.2",), ready=False, serving=True, terminating=True),
        SliceEndpoint(("10.2.0.3",), ready=False),
    )
    six = slice_of("cluster-b", "w-6", SliceEndpoint(("fd00:2::1",)))
    made = offers.of_slices([first, second, replace(six, address_type="IPv6")])
    assert made is not None
    assert made.groups == (
        Group(HTTP, Condition.ACTIVE, False, (B1, packed("fd00:2::1"))),
        Group(HTTP, Condition.TERMINATING, False, (B2,)),
    )
    assert offers.service_of(first) == "shop/web"
    assert offers.of_slices([]) is None


def test_of_an_address_in_two_slices_the_copy_in_the_better_condition_comes_first() -> None:
    leaving = slice_of(
        "cluster-b",
        "w-1",
        SliceEndpoint(("10.2.0.1",), ready=False, serving=True, terminating=True),
    )
    more = (SlicePort("http", "TCP", 8080), SlicePort("metrics", "TCP", 9090))
    ready = replace(slice_of("cluster-b", "w-2", SliceEndpoint(("10.2.0.1",))), ports=more)
    for slices in ([leaving, ready], [ready, leaving]):
        made = offers.of_slices(slices)
        assert made is not None
        (found,) = candidates(Frontend("10.96.0.1", 80, "http", "TCP"), 6, 4, [made])
        assert found.condition is Condition.ACTIVE


def test_a_slice_without_the_label_belongs_to_nobody() -> None:
    assert offers.service_of(slice_of("cluster-b", "w-1", of="")) == ""
