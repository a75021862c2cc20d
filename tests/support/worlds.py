"""Random Kubernetes objects, as JSON would have them: odd, but such that any server keeps them."""

from typing import Any

from hypothesis import strategies as st

from clustermesh.export import Flavour

Manifest = dict[str, Any]
ODD = [
    "",
    "true",
    "True",
    " true",
    "yes",
    "1",
    "0x1F",
    "12:30",
    "1:2:3:4:5:6:7:8",
    "=",
    "~",
    "null",
]
words = st.sampled_from([*ODD, "<&>", "é\u2028", "a: b", "- x", "'", '"', "#", "x" * 90]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=6
)
maps = st.none() | st.dictionaries(words, words, max_size=3)
flags = st.sampled_from(["true", "true", "tRuE", "false", "1", ""])
names = st.sampled_from(["a", "b", "c.d"])
spaces = st.sampled_from(["shop", "db"])
ANNOTATIONS = (
    "service.cilium.io/global",
    "io.cilium/global-service",
    "service.cilium.io/shared",
    "io.cilium/shared-service",
    "service.cilium.io/affinity",
)
protocols = st.sampled_from(["TCP", "UDP", "SCTP", None])
numbers = st.sampled_from([0, 1, 80, 8080, 65535, 70000])


@st.composite
def ips(draw: st.DrawFn, subnet: int) -> str:
    """An address in one of its spellings, or nothing of the kind."""
    host = draw(st.integers(0, 255))
    spelling = ["10.{0}.0.{1}", "::ffff:10.{0}.0.{1}", "FD00:0:{0:x}::{1:X}", "10.{0}.0.0{1}", ""]
    return draw(st.sampled_from(spelling)).format(subnet, host)


def fields(**choices: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A map in which each field is there, absent or null."""
    return st.fixed_dictionaries({}, optional={key: st.none() | of for key, of in choices.items()})


def several(of: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(of, max_size=most)


def objects(
    api: str, kind: str, rest: st.SearchStrategy[dict[str, Any]], *, spaced: bool = True
) -> st.SearchStrategy[Manifest]:
    """Objects of a kind with labels and annotations of every sort."""
    meta = st.fixed_dictionaries(
        {"name": names, **({"namespace": spaces} if spaced else {})},
        optional={"labels": maps, "annotations": maps},
    )
    return st.builds(
        lambda about, more: {"apiVersion": api, "kind": kind, "metadata": about, **more}, meta, rest
    )


def wished(manifest: Manifest, key: str, value: dict[str, str]) -> Manifest:
    """With more labels or annotations than chance gave it."""
    meta = manifest["metadata"]
    return {**manifest, "metadata": {**meta, key: {**(meta.get(key) or {}), **value}}}


namespaces = st.builds(
    lambda name, value, labels: {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {"clustermesh.cilium.io/global": value},
        },
    },
    spaces,
    flags,
    maps,
)
services = st.builds(
    lambda each, told: wished(each, "annotations", told),
    objects(
        "v1",
        "Service",
        fields(
            spec=fields(
                type=st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
                clusterIP=ips(96) | st.just("None"),
                clusterIPs=several(ips(96), 2),
                ports=several(fields(name=words, port=numbers, protocol=protocols)),
                selector=maps,
                externalIPs=several(ips(97), 1),
            )
        ),
    ),
    st.fixed_dictionaries(
        {"service.cilium.io/global": flags}, optional=dict.fromkeys(ANNOTATIONS[1:], flags)
    ),
)
conditions = fields(ready=st.booleans(), serving=st.booleans(), terminating=st.booleans())
ends = st.fixed_dictionaries(
    {"addresses": st.lists(ips(7), min_size=1, max_size=2)},
    optional={
        "conditions": st.none() | conditions,
        "hostname": st.none() | words,
        "zone": st.none() | words,
        "nodeName": st.none() | words,
        "hints": st.none() | fields(forZones=several(fields(name=words), 2)),
    },
)
slices = st.builds(
    lambda each, owner: wished(each, "labels", {"kubernetes.io/service-name": owner}),
    objects(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        fields(
            addressType=st.sampled_from(["IPv4", "IPv6", "FQDN"]),
            ports=several(fields(name=words, port=numbers, protocol=protocols)),
            endpoints=several(ends, 4),
        ),
    ),
    names,
)
exports = objects("multicluster.x-k8s.io/v1alpha1", "ServiceExport", st.just({}))
cidrs = st.builds("{}/{}".format, ips(8), st.integers(0, 40))
pairs = fields(ipv4=ips(9), ipv6=ips(9))
cilium_nodes = objects(
    "cilium.io/v2",
    "CiliumNode",
    fields(
        spec=fields(
            addresses=several(fields(type=words, ip=ips(5))),
            ipam=fields(
                podCIDRs=several(cidrs),
                pools=fields(allocated=several(fields(cidrs=several(cidrs)))),
            ),
            encryption=fields(key=st.integers(0, 600)),
            health=pairs,
            bootid=words,
        )
    ),
    spaced=False,
)
identities = objects(
    "cilium.io/v2", "CiliumIdentity", st.fixed_dictionaries({"security-labels": maps}), spaced=False
)


def endpoints(manifest: Manifest, subnet: int, status: dict[str, Any]) -> Manifest:
    """Addresses are each object's own: of two that claim one, the first to come has it."""
    ip = f"10.{100 + 10 * ('ab'.find(manifest['metadata']['name']) + 1)}.{subnet}.1"
    networking = {"addressing": [{"ipv4": ip}, status.pop("more")], "node": status.pop("node")}
    return {**manifest, "status": {**status, "networking": networking}}


cilium_endpoints = st.builds(
    lambda each, status: endpoints(each, len(each["metadata"]["namespace"]), status),
    objects("cilium.io/v2", "CiliumEndpoint", st.just({})),
    st.fixed_dictionaries(
        {"more": fields(ipv4=st.just("")), "node": ips(5)},
        optional={
            "identity": fields(id=st.integers(0, 1 << 33)),
            "encryption": fields(key=st.integers(0, 600)),
            "service-account": words,
        },
    ),
)
nodes = objects(
    "v1",
    "Node",
    fields(
        spec=fields(podCIDR=cidrs, podCIDRs=several(cidrs, 2)),
        status=fields(
            addresses=several(fields(type=words, address=ips(5))), nodeInfo=fields(bootID=words)
        ),
    ),
    spaced=False,
)


def with_address(manifest: Manifest, phase: str | None, host: str) -> Manifest:
    meta = manifest["metadata"]
    ip = f"10.{100 + 10 * ('ab'.find(meta['name']) + 1)}.{len(meta['namespace'])}.1"
    return {**manifest, "status": {"phase": phase, "hostIP": host, "podIP": ip, "podIPs": None}}


pods = st.builds(
    with_address,
    objects("v1", "Pod", fields(spec=fields(nodeName=names, hostNetwork=st.booleans()))),
    st.sampled_from(["Running", "Pending", None]),
    ips(5),
)
OF_ALL = (namespaces, services, services, slices, slices, exports)


def together(service: Manifest, slices_: list[Manifest]) -> list[Manifest]:
    """A service that is probably told, with slices of its own."""
    meta = service["metadata"]
    owner = {"kubernetes.io/service-name": meta["name"]}
    told = {**dict.fromkeys(meta["annotations"], "true"), "service.cilium.io/global": "True"}
    found = [wished(each, "labels", owner) for each in slices_]
    for number, each in enumerate(found):
        each["metadata"] |= {"namespace": meta["namespace"], "name": f"{meta['name']}-{number}"}
    return [wished(service, "annotations", told), *found]


alone = {
    Flavour.CILIUM: st.one_of(*OF_ALL, cilium_nodes, identities, cilium_endpoints),
    Flavour.CORE: st.one_of(*OF_ALL, nodes, pods),
}
in_company = st.builds(together, services, st.lists(slices, min_size=1, max_size=3))


def world(flavour: Flavour, most: int = 8) -> st.SearchStrategy[list[Manifest]]:
    """Objects of a cluster, each name once."""
    some = st.lists(alone[flavour].map(lambda each: [each]) | in_company, max_size=most)
    return some.map(lambda drawn: list({named(each): each for of in drawn for each in of}.values()))


def named(manifest: Manifest) -> tuple[str, str, str]:
    """What tells an object from all others."""
    meta = manifest["metadata"]
    return manifest["kind"], meta.get("namespace", ""), meta["name"]
