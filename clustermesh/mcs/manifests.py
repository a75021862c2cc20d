"""Objects as an API server takes them: bodies of requests, and what differs from what is there."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from clustermesh.export.services import affinity_seconds
from clustermesh.sources.objects import (
    Condition,
    EndpointSlice,
    Meta,
    Service,
    ServiceImport,
    ServicePort,
    ServiceSpec,
    SessionAffinityConfig,
)

Body = dict[str, Any]


def service_import(wanted: ServiceImport, ips: Sequence[str], *, group: str) -> Body:
    """Without status. ``group``: API group and version."""
    spec = wanted.spec
    return {
        "apiVersion": group,
        "kind": "ServiceImport",
        "metadata": _meta(wanted.metadata),
        "spec": {
            "type": spec.type,
            "ports": [_port(port) for port in spec.ports],
            "ips": list(ips) or None,
            "sessionAffinity": spec.session_affinity,
            "sessionAffinityConfig": _affinity(spec.session_affinity_config),
            "ipFamilies": list(spec.ip_families) or None,
            "internalTrafficPolicy": spec.internal_traffic_policy,
            "trafficDistribution": spec.traffic_distribution,
        },
    }


def service(wanted: Service, owner: ServiceImport, *, group: str) -> Body:
    """The derived Service. What families it gets the API server decides where it can."""
    spec = wanted.spec
    body: Body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            **_meta(wanted.metadata),
            "ownerReferences": [_owner(group, "ServiceImport", owner.metadata)],
        },
        "spec": {"type": "ClusterIP", **_service_spec(spec)},
    }
    if spec.cluster_ip:
        body["spec"]["clusterIP"] = spec.cluster_ip
    if len(spec.ip_families) > 1:
        body["spec"]["ipFamilyPolicy"] = "PreferDualStack"
    elif spec.ip_families:
        body["spec"]["ipFamilies"] = list(spec.ip_families)
    return body


def endpoint_slice(wanted: EndpointSlice, owner: Service) -> Body:
    """A copied slice."""
    meta = _meta(wanted.metadata)
    if owner.metadata.uid:
        meta["ownerReferences"] = [_owner("v1", "Service", owner.metadata)]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta,
        "addressType": wanted.address_type,
        "endpoints": [_endpoint(each) for each in msgspec.to_builtins(wanted.endpoints or ())],
        "ports": [
            {"name": each.name, "protocol": each.protocol, "port": each.port}
            | ({"appProtocol": each.app_protocol} if each.app_protocol else {})
            for each in wanted.ports or ()
        ],
    }


def condition(wanted: Condition, since: str) -> Body:
    """An entry of ``status.conditions``."""
    body: Body = {
        "type": wanted.type,
        "status": wanted.status,
        "reason": wanted.reason,
        "message": wanted.message,
        "lastTransitionTime": since,
    }
    if wanted.observed_generation:
        body["observedGeneration"] = wanted.observed_generation
    return body


# --- differences -------------------------------------------------------------------------------


def merge(body: Body, present: Meta) -> Body:
    """The merge patch that makes labels and annotations exactly those of the body."""
    meta = body["metadata"]
    return {
        **{key: value for key, value in body.items() if key not in ("apiVersion", "kind")},
        "metadata": {
            "labels": _exactly(meta.get("labels", {}), present.labels),
            "annotations": _exactly(meta.get("annotations", {}), present.annotations),
        },
    }


def _exactly(wanted: Mapping[str, str], present: Mapping[str, str] | None) -> Body:
    return {**dict.fromkeys(present or (), None), **wanted}


def same_meta(wanted: Meta, present: Meta) -> bool:
    """Whether labels and annotations are equal."""
    return (wanted.labels or {}) == (present.labels or {}) and (wanted.annotations or {}) == (
        present.annotations or {}
    )


def same_import(wanted: ServiceImport, ips: Sequence[str], present: ServiceImport) -> bool:
    """Whether all but the status is as it should be."""
    spec = msgspec.structs.replace(wanted.spec, ips=tuple(ips))
    return same_meta(wanted.metadata, present.metadata) and spec == present.spec


def same_service(wanted: Service, present: Service) -> bool:
    """Whether what we decide is as it should be; the rest is the API server's."""
    return same_meta(wanted.metadata, present.metadata) and _decided(wanted.spec) == _decided(
        present.spec
    )


def same_slice(wanted: EndpointSlice, present: EndpointSlice) -> bool:
    """Whether labels, endpoints and ports are equal."""
    return (
        (wanted.metadata.labels or {}) == (present.metadata.labels or {})
        and wanted.address_type == present.address_type
        and (wanted.endpoints or ()) == (present.endpoints or ())
        and (wanted.ports or ()) == (present.ports or ())
    )


def _decided(spec: ServiceSpec) -> Body:
    """What of a Service follows from the exports, with the defaults of the API server."""
    decided = _service_spec(spec)
    decided["internalTrafficPolicy"] = decided["internalTrafficPolicy"] or "Cluster"
    decided["sessionAffinityConfig"] = affinity_seconds(spec)
    return decided


def _service_spec(spec: ServiceSpec) -> Body:
    return {
        "ports": [_port(port) for port in spec.ports],
        "sessionAffinity": spec.session_affinity,
        "sessionAffinityConfig": _affinity(spec.session_affinity_config),
        "internalTrafficPolicy": spec.internal_traffic_policy,
        "trafficDistribution": spec.traffic_distribution,
    }


# --- parts -------------------------------------------------------------------------------------


def _meta(meta: Meta) -> Body:
    body: Body = {"name": meta.name, "namespace": meta.namespace}
    if meta.labels:
        body["labels"] = meta.labels
    if meta.annotations:
        body["annotations"] = meta.annotations
    return body


def _owner(group: str, kind: str, meta: Meta) -> Body:
    return {
        "apiVersion": group,
        "kind": kind,
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
    }


def _port(port: ServicePort) -> Body:
    body: Body = {"protocol": port.protocol, "port": port.port}
    if port.name:
        body["name"] = port.name
    if port.app_protocol:
        body["appProtocol"] = port.app_protocol
    return body


def _affinity(config: SessionAffinityConfig | None) -> Body | None:
    if config is None or config.client_ip is None:
        return None
    return {"clientIP": {"timeoutSeconds": config.client_ip.timeout_seconds}}


def _endpoint(endpoint: Body) -> Body:
    """Without what is not said: an API server refuses empty names."""
    body = {key: value for key, value in endpoint.items() if value not in ("", {}, None)}
    body["conditions"] = {
        key: value for key, value in endpoint["conditions"].items() if value is not None
    }
    if not endpoint["hints"]["forZones"]:
        body.pop("hints", None)
    return body
