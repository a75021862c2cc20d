"""How one packet is shown in one line."""

import pytest

from clustermesh.flows import Flow, FlowEnd, Missed
from clustermesh.meshctl.monitor import flow_line, missed_line

POD = FlowEnd(
    address="10.1.0.5", port=4711, identity=65545, cluster="paris", namespace="shop", pod="cart-1"
)


def shown(source: FlowEnd, destination: FlowEnd) -> str:
    flow = Flow(
        time=1e9, node="rome/node-1", type="drop", direction="egress", reason="no node has it",
        protocol="TCP", flags="SYN", size=60, source=source, destination=destination,
    )  # fmt: skip
    return flow_line(flow).partition("  ")[2]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (POD, "paris shop/cart-1 10.1.0.5:4711"),
        (FlowEnd(address="fd00::5", port=80), "[fd00::5]:80"),
        (FlowEnd(address="10.9.0.9"), "10.9.0.9"),
        (FlowEnd(address="10.7.0.1", cluster="paris", node="node-7"), "paris node node-7 10.7.0.1"),
        (FlowEnd(address="10.7.0.5", cluster="paris", namespace="shop"), "paris shop/? 10.7.0.5"),
        (
            FlowEnd(address="1.1.1.1", identity=2, labels=("reserved:world",)),
            "reserved:world 1.1.1.1",
        ),
        (FlowEnd(), "?"),
    ],
)
def test_an_end_is_named_as_far_as_it_is_known(end: FlowEnd, words: str):
    line = shown(POD, end)
    assert line == (
        f"rome/node-1  DROP  egress  TCP SYN  paris shop/cart-1 10.1.0.5:4711 -> {words}"
        "  (no node has it)"
    )


def test_what_was_missed_is_said_with_the_reason():
    missed = Missed(time=0, node="rome/node-1", suppressed=7, skipped=2)
    assert missed_line(missed) == (
        "rome/node-1: not shown: 7 suppressed by the limit, 2 skipped by a slow listener"
    )
