"""What is asked of a node's network, said as a whole."""

from agent.network.demand import Demand
from agent.network.wanted import Facts


def ask(demand: Demand, facts: Facts) -> None:
    """Exactly this; the nodes of destinations through the tunnel are told one after the other."""
    gateways = dict(facts.gateways)
    before, _ = demand.all()
    for cidr in before.destinations - facts.destinations:
        demand.leave(cidr)
    peers = sorted(facts.peers) or [""]
    for at, cidr in enumerate(sorted(facts.destinations)):
        node = gateways.get(cidr, peers[at % len(peers)])
        demand.lead(cidr, node, direct=cidr in gateways)
    if before.sources != facts.sources:
        demand.from_pods(lambda: facts.sources)
    demand.here(overlay=facts.overlay, complete=facts.complete)
