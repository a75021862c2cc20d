"""What Kubernetes objects of a cluster mean for a mesh with others. [pure]"""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Final

from clustermesh.findings import Finding, Result
from clustermesh.meshctl.kube.facts import Facts
from clustermesh.meshfile import Cluster
from clustermesh.places.connection import Object

GLOBAL: Final = ("service.cilium.io/global", "io.cilium/global-service")
WIREGUARD: Final = 255


def judge(
    cluster: Cluster, facts: Facts, readers: Sequence[str], foreign: Sequence[str]
) -> Iterator[Finding]:
    """``readers``: clusters that will read its etcd; ``foreign``: pod ranges of the others."""
    name = cluster.name
    yield from _encryption(name, facts)
    if facts.config.get("routing-mode") == "native" or facts.config.get("tunnel") == "disabled":
        seen = "Cilium there routes natively: its nodes take no packets from a tunnel"
        fix = "set routingMode=tunnel and tunnelProtocol=vxlan in that Cilium"
        yield _failed("TUNNEL_ABSENT", name, seen, fix)
    if cluster.cilium and facts.users is not None:
        for reader in readers:
            if (user := f"remote-{reader}") not in facts.users:
                seen = f"Cilium's users (ConfigMap clustermesh-remote-users) lack {user}"
                fix = f"add {reader} to clustermesh.config.clusters of that Cilium's Helm values"
                yield _failed("PEER_USER_MISSING", name, seen, fix)
    if not facts.config:
        yield from _policies(name, facts, foreign)


def _encryption(cluster: str, facts: Facts) -> Iterator[Finding]:
    kinds = {"WireGuard" if key == WIREGUARD else "IPsec" for key in facts.keys.values()}
    if facts.config.get("enable-wireguard") == "true":
        kinds.add("WireGuard")
    if facts.config.get("enable-ipsec") == "true":
        kinds.add("IPsec")
    if kinds:
        seen = f"its nodes speak {' and '.join(sorted(kinds))}, which this mesh does not"
        fix = "turn node encryption off in that cluster (Cilium: encryption.enabled=false)"
        yield _failed("ENCRYPTION", cluster, seen, fix)


def _policies(cluster: str, facts: Facts, foreign: Sequence[str]) -> Iterator[Finding]:
    """Policies that let no pod of the others reach the pods of a global service."""
    for service in facts.services:
        selector = service.get("spec", {}).get("selector") or {}
        if not selector or not _is_global(service):
            continue
        space = service["metadata"]["namespace"]
        chosen = [it for it in facts.policies if _selects(it, space, selector)]
        if not chosen or any(_lets_in(it, cidr) for it in chosen for cidr in foreign):
            continue
        names = ", ".join(sorted(it["metadata"]["name"] for it in chosen))
        yield Finding(
            code="NETWORK_POLICY",
            result=Result.WARNING,
            where=f"{cluster}/{space}/{service['metadata']['name']}",
            seen=f"policy {names} lets no pod of another cluster reach it: selectors of pods and"
            " namespaces know the own cluster's only",
            fix=f"allow an ipBlock of {', '.join(foreign) or 'the other pod ranges'} as well",
        )


def _is_global(service: Object) -> bool:
    annotations = service["metadata"].get("annotations") or {}
    return any(str(annotations.get(key, "")).lower() == "true" for key in GLOBAL)


def _selects(policy: Object, space: str, labels: Mapping[str, str]) -> bool:
    """Whether it is about what comes in to pods with these labels."""
    spec = policy.get("spec", {})
    if policy["metadata"]["namespace"] != space or "Ingress" not in spec.get(
        "policyTypes", ["Ingress"]
    ):
        return False
    selector = spec.get("podSelector") or {}
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _matches(it, labels) for it in selector.get("matchExpressions") or []
    )


def _matches(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
    return key not in labels


def _lets_in(policy: Object, cidr: str) -> bool:
    """Whether a rule allows all, or a block that has the range in it. Ports are not judged."""
    for rule in policy.get("spec", {}).get("ingress") or []:
        peers = rule.get("from") or []
        if not peers:
            return True
        blocks = [it["ipBlock"]["cidr"] for it in peers if "ipBlock" in it]
        if any(_within(cidr, block) for block in blocks):
            return True
    return False


def _within(cidr: str, block: str) -> bool:
    inner, outer = ip_network(cidr, strict=False), ip_network(block, strict=False)
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # of one version


def _failed(code: str, where: str, seen: str, fix: str) -> Finding:
    return Finding(code=code, result=Result.FAILED, where=where, seen=seen, fix=fix)
