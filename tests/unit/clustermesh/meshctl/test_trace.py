"""A packet's way, judged from what two nodes hold."""

from pathlib import Path

import msgspec
import pytest

from clustermesh import meshfile
from clustermesh.explanation import Candidate, Explanation, FrontendStory, Held
from clustermesh.kept import End, Kept
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.trace import gather, render
from clustermesh.meshctl.tracing import hops
from clustermesh.meshctl.tracing.hops import Party, Trace
from clustermesh.status import NodeStatus
from clustermesh.tracing import Admitted, Leg, Looked, Way
from tests.support.agents import agent

ONE = Party(
    cluster="a", name="d/c1", address="10.1.1.11", identity=82208, node="n1", node_ip="172.30.1.11"
)
OTHER = Party(
    cluster="b", name="d/r1", address="10.2.1.10", identity=155508, node="n1", node_ip="172.30.2.11"
)


def looked(party: Party, behind: str = "") -> Looked:
    labels = ("k8s:app=x", "k8s:io.kubernetes.pod.namespace=d")
    return Looked(
        address=party.address,
        found=True,
        identity=party.identity,
        tunnel_endpoint=behind,
        cluster=party.cluster,
        labels=labels,
    )


def here(one: Party = ONE, other: Party = OTHER) -> Leg:
    return Leg(
        cluster=one.cluster,
        node=one.node,
        node_ip=one.node_ip,
        device="cm_vxlan",
        source=looked(one),
        destination=looked(other, other.node_ip),
        way=Way(device="cm_vxlan", table=8472, source="10.1.1.1", mtu=1450),
    )


def there(one: Party = ONE, other: Party = OTHER, low: int = 65536, high: int = 131071) -> Leg:
    return Leg(
        cluster=other.cluster,
        node=other.node,
        node_ip=other.node_ip,
        device="cm_vxlan",
        source=looked(one, one.node_ip),
        destination=looked(other),
        way=Way(device="pod0", table=254),
        admitted=Admitted(node=one.node_ip, found=True, cluster_id=1, low=low, high=high),
    )


def test_a_right_way_has_every_hop_and_nothing_wrong():
    found = hops.way("there", ONE, OTHER, here(), there())
    assert [hop.what for hop in found] == [
        "route",
        "ipcache, destination",
        "ipcache, source",
        "underlay",
        "nodes map, sender",
        "route to the pod",
    ]
    assert not [hop.wrong for hop in found if hop.wrong]
    text = render(Trace(source=ONE, target=OTHER, hops=found))
    assert "VNI 82208 (0x014120)" in text
    assert "behind 172.30.2.11" in text
    assert "(k8s:app=x)" in text
    assert "The way there:" in text


def test_without_the_tunnel_no_sender_is_checked():
    first = changed(here(), way=Way(device="eth0", table=8472, gateway=OTHER.node_ip))
    second = changed(there(), admitted=Admitted(node="172.30.1.11"))
    found = hops.way("there", ONE, OTHER, first, second)
    assert not [hop.wrong for hop in found if hop.wrong]
    assert "nodes map, sender" not in [hop.what for hop in found]
    assert "without the tunnel, by way of 172.30.2.11" in found[3].found


def changed(leg: Leg, **what: object) -> Leg:
    return msgspec.structs.replace(leg, **what)


@pytest.mark.parametrize(
    ("first", "second", "what", "said"),
    [
        (
            changed(here(), destination=Looked(address="10.2.1.10")),
            there(),
            "ipcache, destination",
            "no entry for 10.2.1.10",
        ),
        (
            changed(here(), destination=looked(OTHER, "172.30.2.99")),
            there(),
            "ipcache, destination",
            "b says it is behind 172.30.2.11",
        ),
        (
            changed(here(), source=Looked(address="10.1.1.11")),
            there(),
            "ipcache, source",
            "goes out as 2 (world)",
        ),
        (
            changed(here(), way=Way(error="Network is unreachable")),
            there(),
            "route",
            "no route to 10.2.1.10: Network is unreachable",
        ),
        (
            changed(here(), way=Way(device="eth0", table=254)),
            there(),
            "route",
            "leads out of eth0, not into the mesh's cm_vxlan",
        ),
        (
            here(),
            changed(there(), admitted=Admitted(node="172.30.1.11")),
            "nodes map, sender",
            "node 172.30.1.11 is not known here",
        ),
        (here(), there(low=1000, high=2000), "nodes map, sender", "is not one of those"),
        (
            here(),
            changed(there(), way=Way(error="unreachable")),
            "route to the pod",
            "no route to 10.2.1.10",
        ),
        ("it does not answer", there(), "agent", "it does not answer"),
        (here(), "it does not answer", "agent", "it does not answer"),
    ],
)
def test_each_thing_that_breaks_is_named(first, second, what: str, said: str):
    found = hops.way("there", ONE, OTHER, first, second)
    (wrong,) = [hop for hop in found if hop.wrong]
    assert wrong.what == what
    assert said in wrong.wrong


def test_within_a_cluster_the_mesh_has_no_part():
    other = msgspec.structs.replace(OTHER, cluster="a")
    (hop,) = hops.way("there", ONE, other, here(), there())
    assert "its own network" in hop.found


def view(*candidates: Candidate, wrong: tuple[str, ...] = ()) -> Explanation:
    held = Held(id=3, count=2, parked=0, slots=2, table_size=1021, reverse_nat="x")
    story = FrontendStory(
        frontend="10.101.0.10:80/TCP", candidates=candidates, held=held, wrong=wrong
    )
    return Explanation(cluster="a", node="n1", service="d/s", found=True, frontends=(story,))


def candidate(address: str, cluster: str, share: float) -> Candidate:
    return Candidate(address=address, cluster=cluster, state="active", share=share, why="drained")


def test_of_a_service_a_backend_of_another_cluster_is_followed():
    chosen, found = hops.service(
        view(candidate("10.1.1.10:80", "a", 0.5), candidate("10.2.1.10:80", "b", 0.5))
    )
    assert chosen == ("b", "10.2.1.10")
    assert "id 3, 2 of 2 slots" in found[0].found


def test_a_service_without_a_usable_backend_ends_there():
    chosen, found = hops.service(view(candidate("10.2.1.10:80", "b", 0.0)))
    assert chosen is None
    assert "no backend can be used" in found[-1].wrong
    chosen, found = hops.service(Explanation(cluster="a", node="n1", service="d/s"))
    assert chosen is None
    assert "no such service" in found[0].wrong


def test_a_map_that_differs_is_the_first_thing_wrong():
    _, found = hops.service(view(candidate("10.2.1.10:80", "b", 1.0), wrong=("slot 1 is gone",)))
    assert found[0].wrong == "slot 1 is gone"


# -- the whole of it, over sockets -----------------------------------------------------------------


def kept(party: Party) -> Kept:
    value = {
        "IP": party.address,
        "HostIP": party.node_ip,
        "ID": party.identity,
        "K8sNamespace": party.name.split("/")[0],
        "K8sPodName": party.name.split("/")[1],
    }
    key = f"cilium/state/ip/v1/default/{party.address}"
    return Kept(key=key, value=msgspec.json.encode(value), revision=1)


def lines(*entries: Kept) -> bytes:
    return b"".join(msgspec.json.encode(it) + b"\n" for it in (*entries, End(revision=1)))


def leg(one: Party, other: Party):
    def answer(path: str, _: bytes) -> Leg:
        forth = f"from={ONE.address}" in path
        source, destination = (ONE, OTHER) if forth else (OTHER, ONE)
        if source is one:
            return here(one, other)
        low = 65536 * (1 if source is ONE else 2)
        return there(source, destination, low=low, high=low + 65535)

    return answer


def test_both_ways_are_asked_of_both_nodes(tmp_path: Path, two_clusters):
    with two_clusters(tmp_path) as mesh:
        found = gather(mesh, "a/d/c1", "b/d/r1")
        assert not found.broken, found.broken
        assert {hop.way for hop in found.hops} == {"there", "back"}
        assert found.target == OTHER
        with pytest.raises(MeshctlError, match=r"a publishes no pod d/nobody.*It has: d/c1"):
            gather(mesh, "a/d/nobody", "b/d/r1")
        with pytest.raises(MeshctlError) as usage:
            gather(mesh, "a/c1", "b/d/r1")
        assert usage.value.code is Exit.USAGE


@pytest.fixture
def two_clusters():
    from contextlib import ExitStack, contextmanager

    @contextmanager
    def made(folder: Path):
        with ExitStack() as stack:
            clusters = []
            for one, other in ((ONE, OTHER), (OTHER, ONE)):
                name = one.cluster
                api = stack.enter_context(
                    agent(folder / f"{name}.api", {"/v1/kvstore": lines(kept(one))})
                )
                nodes = [NodeStatus(name="n1", cluster=name, ipv4=one.node_ip)]
                answers = {"/v1/nodes": nodes, "/v1/trace": leg(one, other)}
                node = stack.enter_context(agent(folder / f"{name}.agent", answers))
                clusters.append(
                    meshfile.Cluster(
                        name=name,
                        id=len(clusters) + 1,
                        endpoints=(),
                        ca_cert=folder / "ca",
                        ca_key=folder / "key",
                        config_dir=folder,
                        users_file=folder / "users",
                        apiserver=api,
                        nodes=(meshfile.Node(name="n1", agent=node),),
                    )
                )
            yield meshfile.Mesh(clusters=tuple(clusters))

    return made
