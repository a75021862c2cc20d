"""The rules of contract kvstore 2, 6 and 12 a second time, in the plainest way, as an oracle.

Manifests (dicts) in, keys and JSON out, with nothing of the product in between: no structs, no
incremental picture, another JSON encoder and another parser of addresses.
"""

import base64
import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Manifest = dict[str, Any]
CLUSTER, NUMBER = "paris", 7
NEVER = {"kube-scheduler", "kube-controller-manager"}


def keys_of(world: Sequence[Manifest]) -> dict[str, str]:
    """What another cluster sees of these objects; every address is in one endpoint only."""
    open_ = {
        each["metadata"]["name"]: _true(_of(each, "annotations")["clustermesh.cilium.io/global"])
        for each in world
        if each["kind"] == "Namespace"
    }
    found: dict[str, str] = {}
    for each in world:
        space = _space(each)
        if space and not open_.get(space, True):
            continue
        found.update(_keys(each, world))
    return found


def _space(each: Manifest) -> str:
    if each["kind"] == "CiliumIdentity":
        return str((each["security-labels"] or {}).get("k8s:io.kubernetes.pod.namespace", ""))
    return str(each["metadata"].get("namespace", ""))


def _keys(each: Manifest, world: Sequence[Manifest]) -> Iterator[tuple[str, str]]:
    name = each["metadata"]["name"]
    match each["kind"]:
        case "CiliumNode":
            yield f"cilium/state/nodes/v1/{CLUSTER}/{name}", go(_node(each))
        case "CiliumIdentity":
            if text := _identity(each["security-labels"] or {}):
                yield f"cilium/state/identities/v1/id/{name}", text
        case "CiliumEndpoint":
            yield from _endpoint(each)
        case "Service":
            space = each["metadata"]["namespace"]
            slices = _slices_of(each, world)
            if slices and _is_exported(each):
                key = f"cilium/state/services/v1/{CLUSTER}/{space}/{name}"
                yield key, go(_service(each, slices))


# --- services ------------------------------------------------------------------------------------


def _is_exported(service: Manifest) -> bool:
    told = _of(service, "annotations")
    shared = _first(told, "service.cilium.io/shared", "io.cilium/shared-service")
    return (
        _true(_first(told, "service.cilium.io/global", "io.cilium/global-service"))
        and (shared is None or _true(shared))
        and (service.get("spec") or {}).get("type") != "ExternalName"
        and service["metadata"]["name"] not in NEVER
        and "service.kubernetes.io/service-proxy-name" not in _of(service, "labels")
    )


def _slices_of(service: Manifest, world: Sequence[Manifest]) -> list[Manifest]:
    meta = service["metadata"]
    found = [
        each
        for each in world
        if each["kind"] == "EndpointSlice"
        and each["metadata"]["namespace"] == meta["namespace"]
        and _of(each, "labels").get("kubernetes.io/service-name") == meta["name"]
    ]
    return sorted(found, key=lambda each: each["metadata"]["name"])


def _service(service: Manifest, slices: list[Manifest]) -> Manifest:
    spec = service.get("spec") or {}
    ports = {
        port.get("name") or "": _port(port)
        for port in spec.get("ports") or ()
        if 0 < (port.get("port") or 0) < 1 << 16
    }
    backends, hostnames, zones = _backends(slices)
    return {
        "cluster": CLUSTER,
        "namespace": service["metadata"]["namespace"],
        "name": service["metadata"]["name"],
        "frontends": _sorted(dict.fromkeys(_frontends(service, spec), _sorted(ports))),
        "backends": _sorted({ip: _sorted(of) for ip, of in backends.items()}),
        **({"hostnames": _sorted(hostnames)} if hostnames else {}),
        **({"zones": _sorted(zones)} if zones else {}),
        "labels": _sorted(_of(service, "labels")),
        "selector": _sorted(spec.get("selector") or {}),
        "includeExternal": True,
        "shared": True,
        "clusterID": NUMBER,
    }


def _frontends(service: Manifest, spec: Manifest) -> list[str]:
    own = spec.get("clusterIP") or ""
    told = spec.get("clusterIPs") or [own]
    headless = "service.kubernetes.io/headless" in _of(service, "labels")
    if headless or any(ip.lower() == "none" for ip in (own, *told)):
        return []
    return [ip for ip in map(address, told) if ip]


def _backends(slices: list[Manifest]) -> tuple[Manifest, Manifest, Manifest]:
    backends: Manifest = {}
    hostnames: Manifest = {}
    zones: Manifest = {}
    for slice_ in slices:
        ports = {
            port.get("name") or "": {**_port(port), "Port": port["port"] & 0xFFFF}
            for port in slice_.get("ports") or ()
            if port.get("port") is not None
        }
        seen = set()
        for ip, endpoint in _usable(slice_):
            if ip in seen:
                continue
            seen.add(ip)
            backends.setdefault(ip, {}).update(ports)
            if endpoint.get("hostname"):
                hostnames[ip] = endpoint["hostname"]
            if endpoint.get("zone"):
                hints = (endpoint.get("hints") or {}).get("forZones") or ()
                named = [{"name": hint.get("name") or ""} for hint in hints]
                zones[ip] = {"zone": endpoint["zone"], "forZones": named}
    return backends, hostnames, zones


def _usable(slice_: Manifest) -> Iterator[tuple[str, Manifest]]:
    for endpoint in (slice_.get("endpoints") or ()) if _of_addresses(slice_) else ():
        conditions = endpoint.get("conditions") or {}
        if conditions.get("ready") is not False or conditions.get("serving"):
            for ip in map(address, endpoint.get("addresses") or ()):
                if ip:
                    yield ip, endpoint


def _of_addresses(slice_: Manifest) -> bool:
    return (slice_.get("addressType") or "IPv4") != "FQDN"


def _port(port: Manifest) -> Manifest:
    return {"Protocol": port.get("protocol") or "TCP", "Port": port.get("port") or 0}


# --- nodes, identities, endpoints ----------------------------------------------------------------


def _node(node: Manifest) -> Manifest:
    meta, spec = node["metadata"], node.get("spec") or {}
    ipam = spec.get("ipam") or {}
    allocated = (ipam.get("pools") or {}).get("allocated") or ()
    told = [
        *(ipam.get("podCIDRs") or ()),
        *(c for pool in allocated for c in pool.get("cidrs") or ()),
    ]
    cidrs = [each for each in map(cidr, told) if each]
    v4 = [each for each in cidrs if "." in each["IP"]]
    v6 = [each for each in cidrs if ":" in each["IP"]]
    health, notes = spec.get("health") or {}, meta.get("annotations")
    addresses = [
        {"Type": each.get("type") or "", "IP": address(each.get("ip") or "")}
        for each in spec.get("addresses") or ()
        if address(each.get("ip") or "")
    ]
    key = _first(notes or {}, "network.cilium.io/wg-pub-key", "io.cilium.network.wg-pub-key")
    return {
        "Name": meta["name"],
        "Cluster": CLUSTER,
        "IPAddresses": addresses or None,
        "IPv4AllocCIDR": v4[0] if v4 else None,
        "IPv4SecondaryAllocCIDRs": v4[1:] or None,
        "IPv6AllocCIDR": v6[0] if v6 else None,
        "IPv6SecondaryAllocCIDRs": v6[1:] or None,
        "IPv4HealthIP": address(health.get("ipv4") or ""),
        "IPv6HealthIP": address(health.get("ipv6") or ""),
        "IPv4IngressIP": "",
        "IPv6IngressIP": "",
        "ClusterID": NUMBER,
        "Source": "custom-resource",
        "EncryptionKey": ((spec.get("encryption") or {}).get("key") or 0) & 0xFF,
        "Labels": _sorted(meta.get("labels")),
        "Annotations": _sorted(notes),
        "WireguardPubKey": key or "",
        "BootID": spec.get("bootid") or "",
    }


def _identity(labels: Mapping[str, str]) -> str:
    parts = []
    for label, value in labels.items():
        source, colon, key = label.partition(":")
        if label.startswith("$"):
            source, key = "reserved", label[1:]
        elif not colon and label.startswith("reserved."):
            source, key = "reserved", label.removeprefix("reserved.")
        elif not colon:
            source, key = "unspec", label
        parts.append((key.encode(), source or "unspec", value))
    return "".join(f"{source}:{key.decode()}={value};" for key, source, value in sorted(parts))


def _endpoint(endpoint: Manifest) -> Iterator[tuple[str, str]]:
    meta, status = endpoint["metadata"], endpoint.get("status") or {}
    networking = status.get("networking") or {}
    for pair in networking.get("addressing") or ():
        for ip in (address(pair.get(family) or "") for family in ("ipv4", "ipv6")):
            account = status.get("service-account")
            if ip:
                yield (
                    f"cilium/state/ip/v1/default/{ip}",
                    go(
                        {
                            "IP": ip,
                            "Mask": None,
                            "HostIP": address(networking.get("node") or ""),
                            "ID": ((status.get("identity") or {}).get("id") or 0) & 0xFFFFFFFF,
                            "Key": ((status.get("encryption") or {}).get("key") or 0) & 0xFF,
                            "Metadata": "",
                            "K8sNamespace": meta["namespace"],
                            "K8sPodName": meta["name"],
                            **({"K8sServiceAccount": account} if account else {}),
                        }
                    ),
                )


# --- Go ------------------------------------------------------------------------------------------


def go(value: Any) -> str:
    """As encoding/json spells it; maps are sorted already."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def address(text: str) -> str:
    """As net.IP prints what net.ParseIP reads."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None:
            return ""
        return str(ip.ipv4_mapped or ip)
    return str(ip)


def cidr(text: str) -> Manifest | None:
    """As net.IPNet is encoded."""
    ip, slash, ones = text.partition("/")
    if not slash or not address(ip):
        return None
    mapped = ":" in ip and "." in address(ip)
    length = int(ones) - (96 if mapped else 0)
    bits = 32 if "." in address(ip) else 128
    if not 0 <= length <= bits:
        return None
    net = ipaddress.ip_network(f"{address(ip)}/{length}", strict=False)
    mask = base64.b64encode(net.netmask.packed).decode()
    return {"IP": str(net.network_address), "Mask": mask}


def _sorted(found: Any) -> Any:
    return found and dict(sorted(found.items(), key=lambda each: each[0].encode()))


def _of(each: Manifest, field: str) -> dict[str, str]:
    return each["metadata"].get(field) or {}


def _first(found: Mapping[str, str], *names: str) -> str | None:
    return next((found[name] for name in names if name in found), None)


def _true(value: str | None) -> bool:
    return value is not None and value.lower() == "true"
