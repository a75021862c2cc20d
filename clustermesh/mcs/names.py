"""The names by which objects of the Multi-Cluster Services API find each other (contract 6.4)."""

from typing import Final

SERVICE: Final = "multicluster.kubernetes.io/service-name"
SOURCE: Final = "multicluster.kubernetes.io/source-cluster"
DERIVED: Final = "multicluster.kubernetes.io/derived-service"
"""Annotation of a ServiceImport: what it is called as a Service. It marks ours."""
FAMILIES: Final = "clustermesh.cilium.io/supported-ip-families"

GLOBAL: Final = "service.cilium.io/global"
SHARED: Final = "service.cilium.io/shared"

OF_SERVICE: Final = "kubernetes.io/service-name"
MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
COPIER: Final = "endpointslice-local-mcsapi-controller.cilium.io"
"""Who copies slices of an exported service to its derived one, as Cilium's operator says it."""
COPY_OF: Final = "service.cilium.io/local-endpointslice"

Name = tuple[str, str]
"""Namespace and name of a service, the same in every cluster."""
