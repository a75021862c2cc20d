"""Nodes as other clusters see them (contract kvstore 2.2, 12.nodes)."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from clustermesh import addresses
from clustermesh.export import annotations
from clustermesh.export.settings import ExportSettings
from clustermesh.model import Cidr, Node, NodeAddress
from clustermesh.sources import objects

SOURCE = "custom-resource"
OVERLAY = ("node.clustermesh.io/overlay-addresses", "clustermesh.io/overlay-address")
POD_CIDRS = ("node.clustermesh.io/pod-cidrs", "clustermesh.io/pod-cidrs")
FIRST, NONE = "first", "none"
OWN_ANNOTATIONS = ("node.clustermesh.io/", "clustermesh.io/")


def from_cilium(node: objects.CiliumNode, settings: ExportSettings) -> Node:
    """A CiliumNode; what is no address or prefix in it is left out."""
    spec, meta = node.spec, node.metadata
    cidrs = [*spec.ipam.pod_cidrs, *(c for pool in spec.ipam.pools.allocated for c in pool.cidrs)]
    return _node(
        settings,
        meta.name,
        [(address.type, address.ip) for address in spec.addresses],
        cidrs,
        health=spec.health,
        ingress=spec.ingress,
        encryption_key=spec.encryption.key & 0xFF,
        labels=meta.labels,
        own_annotations=meta.annotations,
        boot_id=spec.bootid,
    )


def from_core(node: objects.Node, settings: ExportSettings) -> Node:
    """A v1 Node, with the overlay address that its annotation or its pod range gives it.

    Annotations: ``node.clustermesh.io/pod-cidrs: 10.1.0.0/24,fd00::/64`` takes the place of
    ``spec.podCIDRs`` (``none``: the node has no ranges, its pods get host routes).
    ``node.clustermesh.io/overlay-addresses: 10.1.0.1,fd00::1`` are its addresses inside the mesh;
    ``first`` means the first address of its first range of each family, ``none`` that it has none.
    """
    meta = node.metadata
    cidrs = _pod_cidrs(node)
    told = [(address.type, address.address) for address in node.status.addresses]
    told += [("CiliumInternalIP", ip) for ip in _overlay(meta.annotations, cidrs, settings)]
    kept = {
        key: value
        for key, value in (meta.annotations or {}).items()
        if key.startswith(OWN_ANNOTATIONS)
    }
    return _node(
        settings,
        meta.name,
        told,
        cidrs,
        labels=meta.labels,
        own_annotations=kept or None,
        boot_id=node.status.node_info.boot_id,
    )


def mistakes(node: objects.Node) -> Iterable[str]:
    """What is wrong with a v1 Node's annotations, one sentence each."""
    overlay = annotations.first(node.metadata.annotations, OVERLAY)
    if overlay not in (None, FIRST, NONE):
        for word in _words(overlay):
            if not addresses.packed(word):
                yield f"{OVERLAY[0]}: {word!r} is not an IP address"
    cidrs = annotations.first(node.metadata.annotations, POD_CIDRS)
    if cidrs not in (None, NONE):
        for word in _words(cidrs):
            if Cidr.of(word) is None:
                yield f"{POD_CIDRS[0]}: {word!r} is not a prefix"


def _node(
    settings: ExportSettings,
    name: str,
    told: Iterable[tuple[str, str]],
    cidrs: Iterable[str],
    *,
    labels: dict[str, str] | None,
    own_annotations: dict[str, str] | None,
    boot_id: str,
    health: objects.Pair = objects.Pair(),  # noqa: B008 - a frozen value
    ingress: objects.Pair = objects.Pair(),  # noqa: B008 - a frozen value
    encryption_key: int = 0,
) -> Node:
    v4, v6 = _by_family(cidrs)
    return Node(
        name=name,
        cluster=settings.cluster,
        addresses=tuple(
            NodeAddress(type_, ip) for type_, text in told if (ip := addresses.canonical(text))
        )
        or None,
        ipv4_alloc_cidr=v4[0] if v4 else None,
        ipv4_secondary_alloc_cidrs=tuple(v4[1:]) or None,
        ipv6_alloc_cidr=v6[0] if v6 else None,
        ipv6_secondary_alloc_cidrs=tuple(v6[1:]) or None,
        ipv4_health_ip=addresses.canonical(health.ipv4),
        ipv6_health_ip=addresses.canonical(health.ipv6),
        ipv4_ingress_ip=addresses.canonical(ingress.ipv4),
        ipv6_ingress_ip=addresses.canonical(ingress.ipv6),
        cluster_id=settings.cluster_id,
        source=SOURCE,
        encryption_key=encryption_key,
        labels=labels,
        annotations=own_annotations,
        wireguard_pub_key=annotations.first(own_annotations, annotations.WIREGUARD) or "",
        boot_id=boot_id,
    )


def _by_family(texts: Iterable[str]) -> tuple[list[Cidr], list[Cidr]]:
    found: tuple[list[Cidr], list[Cidr]] = ([], [])
    for text in texts:
        cidr = Cidr.of(text)
        if cidr is not None:
            found[":" in cidr.ip].append(cidr)
    return found


def _pod_cidrs(node: objects.Node) -> Sequence[str]:
    told = annotations.first(node.metadata.annotations, POD_CIDRS)
    if told is not None:
        return () if told == NONE else _words(told)
    if node.spec.pod_cidrs:
        return node.spec.pod_cidrs
    return (node.spec.pod_cidr,) if node.spec.pod_cidr else ()


def _overlay(
    told: Mapping[str, str] | None, cidrs: Sequence[str], settings: ExportSettings
) -> Iterable[str]:
    words = annotations.first(told, OVERLAY)
    if words is None:
        words = FIRST if settings.first_address_is_overlay else NONE
    if words == NONE:
        return ()
    if words != FIRST:
        return _words(words)
    firsts = (family[0] for family in _by_family(cidrs) if family)
    return [str(ipaddress.ip_network(cidr.text())[1]) for cidr in firsts if _has_hosts(cidr)]


def _has_hosts(cidr: Cidr) -> bool:
    return ipaddress.ip_network(cidr.text()).num_addresses > 1


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
