"""v1 Namespace, Node and Pod."""

import msgspec

from clustermesh.sources.objects.base import Meta, Wire


class Namespace(Wire, frozen=True, gc=False):
    """v1 Namespace."""

    metadata: Meta


class Address(Wire, frozen=True, gc=False):
    """An address of a v1 Node."""

    type: str = ""
    address: str = ""


class NodeSpec(Wire, frozen=True, gc=False):
    """Pod ranges; ``pod_cidr`` is the old single field."""

    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: tuple[str, ...] = msgspec.field(name="podCIDRs", default=())


class NodeInfo(Wire, frozen=True, gc=False):
    """Part of what kubelet reports."""

    boot_id: str = msgspec.field(name="bootID", default="")


class NodeStatus(Wire, frozen=True, gc=False):
    """Addresses of a v1 Node."""

    addresses: tuple[Address, ...] = ()
    node_info: NodeInfo = NodeInfo()


class Node(Wire, frozen=True, gc=False):
    """v1 Node."""

    metadata: Meta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class PodSpec(Wire, frozen=True, gc=False):
    """Where a pod runs and as whom."""

    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False


class PodIP(Wire, frozen=True, gc=False):
    """One address of a pod."""

    ip: str = ""


class PodStatus(Wire, frozen=True, gc=False):
    """``phase`` Succeeded and Failed have given their addresses back."""

    phase: str = ""
    host_ip: str = msgspec.field(name="hostIP", default="")
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[PodIP, ...] = msgspec.field(name="podIPs", default=())


class Pod(Wire, frozen=True, gc=False):
    """v1 Pod."""

    metadata: Meta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()
