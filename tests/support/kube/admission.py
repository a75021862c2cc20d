"""What a real API server fills in and refuses of the built-in kinds, as far as the tests meet it.

Source: the Kubernetes API reference for Service, EndpointSlice, Pod, Node and Lease.
"""

import copy
import ipaddress
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.support.kube import refusals
from tests.support.kube.catalog import Kind
from tests.support.kube.store import Manifest

RANGES = ("10.96.0.0/12", "fd00:96::/112")
"""Of cluster addresses; the real server is started with the same."""
FAMILIES = {4: "IPv4", 6: "IPv6"}
PROTOCOLS = frozenset({"TCP", "UDP", "SCTP"})
NONE = "None"


class Admission:
    """Defaults and validation; ``services`` gives those that exist, for their addresses."""

    def __init__(self, services: Callable[[], Iterator[Manifest]]) -> None:
        self._services = services

    def admit(self, kind: Kind, wanted: Manifest, before: Manifest | None) -> Manifest:
        """The object as it would be stored. Raises ``Refused`` with 422."""
        rules = {
            "services": self._service,
            "namespaces": _namespace,
            "endpointslices.discovery.k8s.io": _endpoint_slice,
            "pods": _pod,
            "nodes": _node,
            "leases.coordination.k8s.io": _lease,
        }
        rule = rules.get(kind.title)
        if rule is None:
            return wanted
        made = copy.deepcopy(wanted)
        try:
            faults = list(rule(made, before))
        except (TypeError, AttributeError, KeyError) as error:
            raise refusals.bad(f"it cannot be handled as a {kind.name}: {error}") from error
        if faults:
            raise refusals.invalid(kind, made["metadata"]["name"], faults)
        return made

    # --- services ------------------------------------------------------------------------------

    def _service(self, made: Manifest, before: Manifest | None) -> Iterator[str]:
        spec: Manifest = made.setdefault("spec", {})
        if before is None:
            made["status"] = {"loadBalancer": {}}
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", NONE)
        if spec["sessionAffinity"] == "ClientIP":
            spec.setdefault("sessionAffinityConfig", {"clientIP": {"timeoutSeconds": 10800}})
        yield from _service_ports(spec)
        if spec["type"] == "ExternalName":
            if not spec.get("externalName"):
                yield "spec.externalName: Required value"
            return
        spec.setdefault("internalTrafficPolicy", "Cluster")
        if spec["type"] in {"NodePort", "LoadBalancer"}:
            spec.setdefault("externalTrafficPolicy", "Cluster")
        yield from self._addresses(spec, before)

    def _addresses(self, spec: Manifest, before: Manifest | None) -> Iterator[str]:
        old = (before or {}).get("spec", {})
        had = old.get("clusterIPs", []) if old.get("type") != "ExternalName" else []
        told = spec.get("clusterIPs") or [ip for ip in (spec.get("clusterIP"),) if ip]
        if not told:
            told = list(had)
        if spec.get("clusterIP") not in {None, "", *told[:1]}:
            yield "spec.clusterIPs[0]: first value must match `clusterIP`"
        if had and told != had:
            yield f"spec.clusterIPs[0]: Invalid value: {told}: may not change once set"
            return
        if told[:1] == [NONE]:
            families = spec.get("ipFamilies") or ["IPv4"]
        else:
            yield from self._in_range(told, had)
            told = told or [next(self._free())]
            families = [FAMILIES[ipaddress.ip_address(ip).version] for ip in told]
        spec |= {"clusterIP": told[0], "clusterIPs": told, "ipFamilies": families}
        policy = "RequireDualStack" if len(families) > 1 else "SingleStack"
        spec.setdefault("ipFamilyPolicy", policy)

    def _in_range(self, told: list[str], had: list[str]) -> Iterator[str]:
        for ip in told:
            if not any(ipaddress.ip_address(ip) in ipaddress.ip_network(net) for net in RANGES):
                yield f"spec.clusterIPs: Invalid value: {ip}: the range of valid IPs is {RANGES}"
            elif ip not in had and ip in self._taken():
                yield f"spec.clusterIPs: Invalid value: {ip}: provided IP is already allocated"

    def _taken(self) -> set[str]:
        return {ip for each in self._services() for ip in each["spec"].get("clusterIPs", ())}

    def _free(self) -> Iterator[str]:
        """Addresses that nobody has; a real server draws them at random."""
        first, taken = ipaddress.ip_address("10.100.0.1"), self._taken()
        for number in range(1 << 18):
            if (ip := str(first + number)) not in taken:
                yield ip


def _service_ports(spec: Manifest) -> Iterator[str]:
    ports = spec.get("ports") or []
    headless = spec.get("clusterIP") == NONE
    if not ports and not headless and spec["type"] != "ExternalName":
        yield "spec.ports: Required value"
    for index, port in enumerate(ports):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
        if not 0 < port["port"] <= 0xFFFF:
            yield f"spec.ports[{index}].port: {_port(port['port'])}"
        if port["protocol"] not in PROTOCOLS:
            yield f"spec.ports[{index}].protocol: Unsupported value"
        if len(ports) > 1 and not port.get("name"):
            yield f"spec.ports[{index}].name: Required value"


def _namespace(made: Manifest, before: Manifest | None) -> Iterator[str]:
    made.setdefault("spec", {"finalizers": ["kubernetes"]})
    made["status"] = {"phase": "Active"}
    yield from ()


def _port(number: int) -> str:
    return f"Invalid value: {number}: must be between 1 and 65535, inclusive"


# --- the others ---------------------------------------------------------------------------------


def _endpoint_slice(made: Manifest, before: Manifest | None) -> Iterator[str]:
    if made.get("addressType") not in {"IPv4", "IPv6", "FQDN"}:
        told = f'Unsupported value: "{made.get("addressType")}"'
        yield f'addressType: {told}: supported values: "FQDN", "IPv4", "IPv6"'
        return
    if before and before["addressType"] != made.get("addressType"):
        yield "addressType: field is immutable"
    yield from _target_ports(made.get("ports") or [])
    for index, endpoint in enumerate(made.get("endpoints") or ()):
        addresses = endpoint.get("addresses") or []
        if not addresses:
            yield f"endpoints[{index}].addresses: Required value"
        for at, text in enumerate(addresses if made.get("addressType") != "FQDN" else ()):
            field = f"endpoints[{index}].addresses[{at}]"
            yield from _endpoint_address(field, text, made.get("addressType", ""))
        for field in (each for each in ("hostname", "nodeName") if endpoint.get(each) == ""):
            yield f"endpoints[{index}].{field}: must not be empty"


def _target_ports(ports: list[Manifest]) -> Iterator[str]:
    for port in ports:
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")
        if port["protocol"] not in PROTOCOLS:
            yield "ports.protocol: Unsupported value"
    if len(ports) != len({port["name"] for port in ports}):
        yield "ports.name: Duplicate value"


def _endpoint_address(field: str, text: str, family: str) -> Iterator[str]:
    """An IPv4-mapped IPv6 address counts as IPv4."""
    told = f'{field}: Invalid value: "{text}": '
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        yield f"{told}must be a valid {family} address"
        return
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if FAMILIES[ip.version] != family:
        yield f"{told}must be a valid {family} address"
    if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        yield f"{told}may not be special"  # since 1.21


def _pod(made: Manifest, before: Manifest | None) -> Iterator[str]:
    containers = made.get("spec", {}).get("containers") or []
    if not containers or not all(each.get("name") and each.get("image") for each in containers):
        yield "spec.containers: Required value"
    if before is None:
        made["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    elif before["spec"].get("nodeName", made["spec"].get("nodeName")) != made["spec"].get(
        "nodeName"
    ):
        yield "spec: Forbidden: pod updates may not change fields"


def _node(made: Manifest, before: Manifest | None) -> Iterator[str]:
    spec: Mapping[str, Any] = made.get("spec") or {}
    cidrs = spec.get("podCIDRs") or []
    if spec.get("podCIDR", "") != (cidrs[0] if cidrs else ""):
        yield "spec.podCIDRs[0]: must match podCIDR"
    old = ((before or {}).get("spec") or {}).get("podCIDRs")
    if old and old != cidrs:
        yield 'spec: Forbidden: node updates may not change podCIDR except from "" to valid'


def _lease(made: Manifest, _: Manifest | None) -> Iterator[str]:
    spec = made.get("spec", {})
    if spec.get("leaseDurationSeconds", 1) <= 0:
        yield "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"
    if spec.get("leaseTransitions", 0) < 0:
        yield "spec.leaseTransitions: must be greater than or equal to 0"
    for field in ("renewTime", "acquireTime"):
        text = spec.get(field)
        if text is not None and not _is_micro_time(text):
            raise TypeError(f"spec.{field}: {text} is no MicroTime")


def _is_micro_time(text: str) -> bool:
    """2006-01-02T15:04:05.000000Z: six digits, no more and no fewer."""
    return len(text) == 27 and text[19] == "." and text[20:26].isdecimal() and text[26] == "Z"
