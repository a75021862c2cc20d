"""What is published depends on the present objects, never on the way that led to them."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from clustermesh import keys, local
from clustermesh.export import Exporter, ExportSettings, Flavour, SliceExport
from clustermesh.export.claims import Claims
from clustermesh.identities import Allocator
from clustermesh.keys import Kind, Layout, Origin
from clustermesh.sources import objects
from clustermesh.sources.port import Removal, Upsert
from tests.support.manifests import feed

namespaces = st.sampled_from(["web", "db"])
short = st.sampled_from(["a", "b"])
flags = st.sampled_from(["true", "true", "True", "false"])
last = st.integers(1, 6)


def meta(namespace: str, name: str, **more: object) -> objects.Meta:
    return objects.Meta(name=name, namespace=namespace, **more)


some_namespace = st.builds(
    lambda name, value, team: objects.Namespace(
        metadata=objects.Meta(
            name=name, annotations={"clustermesh.cilium.io/global": value}, labels={"team": team}
        )
    ),
    namespaces,
    flags,
    short,
)
some_service = st.builds(
    lambda namespace, name, is_global, shared, ip, type_: objects.Service(
        metadata=meta(
            namespace,
            name,
            annotations={"service.cilium.io/global": is_global, "service.cilium.io/shared": shared},
        ),
        spec=objects.ServiceSpec(
            type=type_,
            cluster_ip=ip,
            ports=(objects.ServicePort(name="http", port=80, node_port=30080),),
        ),
    ),
    namespaces,
    short,
    flags,
    flags,
    st.sampled_from(["10.96.0.1", "None", "nonsense", ""]),
    st.sampled_from(["ClusterIP", "NodePort", "ExternalName"]),
)
conditions = st.builds(
    objects.Conditions,
    ready=st.none() | st.booleans(),
    serving=st.none() | st.booleans(),
    terminating=st.none() | st.booleans(),
)
some_slice = st.builds(
    lambda namespace, name, service, ends, kind: objects.EndpointSlice(
        metadata=meta(namespace, name, labels={"kubernetes.io/service-name": service}),
        address_type=kind,
        endpoints=tuple(
            objects.Endpoint(addresses=(f"10.0.0.{number}",), conditions=state)
            for number, state in ends
        ),
        ports=(objects.EndpointPort(name="http", port=8080),),
    ),
    namespaces,
    short,
    short,
    st.lists(st.tuples(last, conditions), max_size=3),
    st.sampled_from(["IPv4", "FQDN"]),
)
some_export = st.builds(
    lambda namespace, name: objects.ServiceExport(
        metadata=meta(namespace, name, creation_timestamp="2026-11-21T00:00:00Z")
    ),
    namespaces,
    short,
)
some_cilium_node = st.builds(
    lambda name, number: objects.CiliumNode(
        metadata=objects.Meta(name=name),
        spec=objects.CiliumNodeSpec(
            addresses=(objects.CiliumAddress("InternalIP", f"192.0.2.{number}"),)
        ),
    ),
    short,
    last,
)
some_identity = st.builds(
    lambda number, namespace: objects.CiliumIdentity(
        metadata=objects.Meta(name=str(458752 + number)),
        security_labels={"k8s:io.kubernetes.pod.namespace": namespace, "k8s:app": "x"},
    ),
    last,
    namespaces,
)
some_node = st.builds(
    lambda name, number: objects.Node(
        metadata=objects.Meta(name=name),
        spec=objects.NodeSpec(pod_cidrs=(f"10.1.{number}.0/24",)),
        status=objects.NodeStatus(addresses=(objects.Address("InternalIP", f"192.0.2.{number}"),)),
    ),
    short,
    last,
)


def endpoint(namespace: str, name: str, number: int) -> objects.CiliumEndpoint:
    """Addresses are each object's own, so that nobody waits for anybody."""
    ip = f"10.{1 + (namespace == 'web')}.{1 + (name == 'a')}.{number}"
    return objects.CiliumEndpoint(
        metadata=meta(namespace, name),
        status=objects.EndpointStatus(
            identity=objects.EndpointIdentity(458752 + number),
            networking=objects.Networking((objects.Pair(ipv4=ip),), "192.0.2.1"),
        ),
    )


def pod(namespace: str, name: str, number: int, app: str, host: str) -> objects.Pod:
    ip = f"10.{1 + (namespace == 'web')}.{1 + (name == 'a')}.{number}"
    return objects.Pod(
        metadata=meta(namespace, name, labels={"app": app}),
        spec=objects.PodSpec(node_name="a"),
        status=objects.PodStatus(pod_ip=ip, host_ip=host),
    )


some_endpoint = st.builds(endpoint, namespaces, short, last)
some_pod = st.builds(pod, namespaces, short, last, short, st.sampled_from(["", "192.0.2.9"]))
services = [some_namespace, some_service, some_slice, some_export]
cilium_worlds = st.one_of(*services, some_cilium_node, some_identity, some_endpoint)
core_worlds = st.one_of(*services, some_node, some_pod)


class OneByOne(RuleBasedStateMachine):
    """Objects come, change and go; at each moment the keys are those of a fresh start."""

    settings = ExportSettings(
        cluster="paris",
        cluster_id=7,
        mcs_api=True,
        slices=SliceExport.BOTH,
    )
    world = cilium_worlds

    def __init__(self) -> None:
        super().__init__()
        self.allocator = Allocator(keys.identity_range(7))
        self.exporter = Exporter(self.settings, self.allocator)
        self.etcd: dict[str, bytes] = {}

    def told(self, changes: object) -> None:
        for key, value in changes:
            assert self.etcd.get(key) != value, "a write that changes nothing"
            if value is None:
                del self.etcd[key]
            else:
                self.etcd[key] = value

    @rule(data=st.data())
    def upsert(self, data: st.DataObject) -> None:
        for each in data.draw(st.lists(self.world, min_size=1, max_size=5)):
            self.told(self.exporter.apply(objects.ref(each).kind, [Upsert(each)]))

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        known = sorted(self.exporter.known())
        if known:
            ref = data.draw(st.sampled_from(known))
            self.told(self.exporter.apply(ref.kind, [Removal(ref)]))

    @invariant()
    def incremental_equals_from_scratch(self) -> None:
        fresh = Exporter(self.settings, self.allocator)
        feed(fresh, self.exporter.known().values())
        assert fresh.wanted() == self.exporter.wanted() == self.etcd
        assert sorted(fresh.refusals()) == sorted(self.exporter.refusals())

    @invariant()
    def what_is_published_is_what_a_consumer_believes(self) -> None:
        origin = Origin("paris", 7)
        for key, value in self.etcd.items():
            if key.startswith(local.SERVICES_PREFIX):
                assert local.encode(local.decode(key, value)) == value
                continue
            kind = next(k for k in Kind if key.startswith(keys.prefix(k, Layout.STATE, "paris")))
            if kind is Kind.IDENTITIES and self.settings.flavour is Flavour.CILIUM:
                continue  # whatever Cilium numbered and labelled is passed on as it stands
            fact = keys.decode(kind, origin, key, value)
            assert keys.encode(fact) == value


class CoreOneByOne(OneByOne):
    """The same with flavour core, in a cluster whose namespaces export only when told to."""

    settings = ExportSettings(
        cluster="paris", cluster_id=7, flavour=Flavour.CORE, global_namespaces=False
    )
    world = core_worlds


TestCilium = OneByOne.TestCase
TestCilium.settings = settings(max_examples=50, stateful_step_count=15, deadline=None)
TestCore = CoreOneByOne.TestCase
TestCore.settings = settings(max_examples=50, stateful_step_count=15, deadline=None)


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.dictionaries(short, st.binary(max_size=1)))))
def test_claims_are_queues(steps: list[tuple[str, dict[str, bytes]]]) -> None:
    """Compared with the obvious way: per key, claimants in the order in which they came."""
    claims: Claims[str] = Claims()
    queues: dict[str, dict[str, bytes]] = {}
    seen: dict[str, bytes] = {}
    for claimant, wanted in steps:
        claims.claim(claimant, wanted)
        for key in list(queues):
            if key not in wanted:
                queues[key].pop(claimant, None)
        for key, value in wanted.items():
            queues.setdefault(key, {})[claimant] = value
        expected = {key: next(iter(queue.values())) for key, queue in queues.items() if queue}
        for key, value in claims.changes():
            if value is None:
                del seen[key]
            else:
                seen[key] = value
        assert dict(claims.items()) == expected == seen
        assert {key: (owner, waiting) for key, owner, waiting in claims.waiting()} == {
            key: (next(iter(queue)), list(queue)[1:])
            for key, queue in queues.items()
            if len(queue) > 1
        }
