"""CRDs of the MCS-API with a schema that an API server holds objects against.

Source: KEP-1645 and the Kubernetes API conventions for conditions. A real API server drops what the
schema does not name, refuses what it forbids and takes no null; the test API server takes anything.
"""

from typing import Any

from tests.support.kube import manifests as make

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer", "format": "int32"}
AFFINITY: Schema = {
    "type": "object",
    "properties": {
        "clientIP": {"type": "object", "properties": {"timeoutSeconds": NUMBER}},
    },
}
PORT: Schema = {
    "type": "object",
    "required": ["port"],
    "properties": {
        "name": TEXT,
        "protocol": {**TEXT, "default": "TCP"},
        "appProtocol": TEXT,
        "port": NUMBER,
    },
}
CONDITION: Schema = {
    "type": "object",
    "required": ["lastTransitionTime", "message", "reason", "status", "type"],
    "properties": {
        "lastTransitionTime": {**TEXT, "format": "date-time"},
        "message": {**TEXT, "maxLength": 32768},
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        "reason": {
            **TEXT,
            "minLength": 1,
            "maxLength": 1024,
            "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        },
        "status": {**TEXT, "enum": ["True", "False", "Unknown"]},
        "type": {**TEXT, "maxLength": 316},
    },
}


def _list(items: Schema, key: str = "") -> Schema:
    found: Schema = {"type": "array", "items": items}
    if key:
        found |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return found


def _texts() -> Schema:
    return {"type": "object", "additionalProperties": TEXT}


IMPORT_SPEC: Schema = {
    "type": "object",
    "required": ["ports", "type"],
    "properties": {
        "ports": {**_list(PORT), "x-kubernetes-list-type": "atomic"},
        "ips": {**_list(TEXT), "maxItems": 2},
        "type": {**TEXT, "enum": ["ClusterSetIP", "Headless"]},
        "sessionAffinity": TEXT,
        "sessionAffinityConfig": AFFINITY,
        "ipFamilies": {**_list(TEXT), "maxItems": 2},
        "internalTrafficPolicy": TEXT,
        "trafficDistribution": TEXT,
    },
}
CLUSTER: Schema = {"type": "object", "required": ["cluster"], "properties": {"cluster": TEXT}}
STATUS: Schema = {"type": "object", "properties": {"conditions": _list(CONDITION, "type")}}
IMPORT_STATUS: Schema = {
    "type": "object",
    "properties": {"clusters": _list(CLUSTER, "cluster"), "conditions": _list(CONDITION, "type")},
}
EXPORT_SPEC: Schema = {
    "type": "object",
    "properties": {"exportedLabels": _texts(), "exportedAnnotations": _texts()},
}


def _crd(kind: str, plural: str, spec: Schema, status: Schema, version: str) -> make.Manifest:
    made = make.crd("multicluster.x-k8s.io", version, kind, plural, namespaced=True, status=True)
    made["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = {
        "type": "object",
        "properties": {
            "apiVersion": TEXT,
            "kind": TEXT,
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    return made


def crds(version: str = "v1alpha1") -> tuple[make.Manifest, make.Manifest]:
    """ServiceExport and ServiceImport in one version."""
    return (
        _crd("ServiceExport", "serviceexports", EXPORT_SPEC, STATUS, version),
        _crd("ServiceImport", "serviceimports", IMPORT_SPEC, IMPORT_STATUS, version),
    )
