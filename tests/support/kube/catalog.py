"""Which kinds a server serves, and where: the built-in ones the tests need, and those of CRDs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One resource of an API group.

    ``has_status``: status is written at its own path only. ``conditional``: it is replaced only by
    who knows its version. ``counted``: its generation is.
    """

    group: str
    versions: tuple[str, ...]
    plural: str
    name: str
    namespaced: bool
    has_status: bool = False
    conditional: bool = False
    counted: bool = False

    def api_version(self, version: str) -> str:
        return f"{self.group}/{version}" if self.group else version

    @property
    def title(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


RBAC = "rbac.authorization.k8s.io"
CRDS = Kind(
    "apiextensions.k8s.io", ("v1",), "customresourcedefinitions", "CustomResourceDefinition", False
)
BUILT_IN = (
    Kind("", ("v1",), "namespaces", "Namespace", False, True),
    Kind("", ("v1",), "nodes", "Node", False, True),
    Kind("", ("v1",), "pods", "Pod", True, True),
    Kind("", ("v1",), "services", "Service", True, True),
    Kind("", ("v1",), "secrets", "Secret", True),
    Kind("", ("v1",), "configmaps", "ConfigMap", True),
    Kind("apps", ("v1",), "deployments", "Deployment", True, True),
    Kind("networking.k8s.io", ("v1",), "networkpolicies", "NetworkPolicy", True),
    Kind("discovery.k8s.io", ("v1",), "endpointslices", "EndpointSlice", True, counted=True),
    Kind("coordination.k8s.io", ("v1",), "leases", "Lease", True, conditional=True),
    Kind(RBAC, ("v1",), "clusterroles", "ClusterRole", False),
    Kind(RBAC, ("v1",), "clusterrolebindings", "ClusterRoleBinding", False),
    Kind(RBAC, ("v1",), "roles", "Role", True),
    Kind(RBAC, ("v1",), "rolebindings", "RoleBinding", True),
    CRDS,
)


def of_crd(crd: dict[str, Any]) -> Kind:
    """The kind that a CustomResourceDefinition defines."""
    spec = crd["spec"]
    versions = [each for each in spec["versions"] if each["served"]]
    return Kind(
        spec["group"],
        tuple(each["name"] for each in versions),
        spec["names"]["plural"],
        spec["names"]["kind"],
        spec["scope"] == "Namespaced",
        any("status" in each.get("subresources", {}) for each in versions),
        conditional=True,
        counted=True,
    )


class Catalog:
    """The kinds served now."""

    def __init__(self) -> None:
        self._kinds = list(BUILT_IN)

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds)

    @property
    def namespaces(self) -> Kind:
        """What namespaced objects are in."""
        return BUILT_IN[0]

    def add(self, kind: Kind) -> None:
        self.remove(kind)
        self._kinds.append(kind)

    def remove(self, kind: Kind) -> None:
        self._kinds = [each for each in self._kinds if each.title != kind.title]

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        for kind in self._kinds:
            if kind.group == group and version in kind.versions and kind.plural == plural:
                return kind
        return None

    def of(self, manifest: dict[str, Any]) -> Kind:
        """The kind of a manifest."""
        group, _, version = manifest["apiVersion"].rpartition("/")
        for kind in self._kinds:
            if (kind.group, kind.name) == (group, manifest["kind"]) and version in kind.versions:
                return kind
        raise LookupError(f"{manifest['apiVersion']} {manifest['kind']}")
