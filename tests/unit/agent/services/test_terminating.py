"""A backend that begins to terminate: the map says so, whatever it said before."""

from bpf.layout_lb import BackendState, BackendValue
from tests.support.mesh import OWN, Agent, backend, contents, service


def states(agent: Agent) -> dict[bytes, BackendState]:
    found = map(BackendValue.unpack, contents(agent.maps)["backends4"].values())
    return {value.address[-1:]: value.state for value in found}


def test_its_state_is_what_a_fresh_start_would_write():
    ready = service(backend("10.1.0.1"), backend("10.1.0.2"))
    leaving = service(backend("10.1.0.1", state="terminating"), backend("10.1.0.2"))

    agent = Agent().expect().local(ready).synced(OWN).settle()
    agent.local(leaving).settle()

    fresh = Agent().expect().local(leaving).synced(OWN).settle()
    assert states(agent) == states(fresh)
    assert states(agent)[b"\x01"] == BackendState.TERMINATING


def test_a_restart_writes_nothing_then():
    leaving = service(backend("10.1.0.1", state="terminating"), backend("10.1.0.2"))
    first = Agent().expect().local(service("10.1.0.1", "10.1.0.2")).synced(OWN).settle()
    first.local(leaving).settle()
    again = Agent(first.maps).expect().local(leaving).synced(OWN).settle()
    assert again.dataplane.map_writes == 0
