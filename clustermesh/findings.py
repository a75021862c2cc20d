"""What checks find: a verdict with a stable code, what was seen, why that matters, how to mend it.

GET /v1/troubleshoot, /v1/premises, /v1/probes/now and POST /v1/reach, /v1/passing of an agent,
and ``meshctl plan``; docs/checks.md lists every code.
"""

from enum import StrEnum

import msgspec


class Result(StrEnum):
    """``SKIPPED``: an earlier check failed, so this one could say nothing."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Finding(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """``code`` never changes its meaning. ``fix`` is empty when there is nothing to mend."""

    code: str
    result: Result
    where: str
    seen: str
    fix: str = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One remote cluster seen from one node: its stages in order, the first failure last."""

    cluster: str
    node: str
    remote: str
    findings: tuple[Finding, ...]


class Reach(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What POST /v1/reach asks: can this server be reached from here, and is it who it should be?

    ``authority`` is the PEM text of the certificates that may vouch for it.
    """

    endpoints: tuple[str, ...]
    host_aliases: dict[str, tuple[str, ...]] = {}
    authority: str


class ProbeAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """GET /v1/probes/now: one node of a remote cluster, asked through the overlay just now.

    ``rtt`` is in seconds; None: it did not answer.
    """

    address: str
    rtt: float | None


class Heard(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", omit_defaults=True):
    """POST /v1/passing/hear, a line: a datagram that came in on the overlay's port.

    ``sender`` is ``cluster/node``, empty in the first line; ``size`` that of the IP packet.
    """

    sender: str = ""
    source: str = ""
    size: int = 0


class Called(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """POST /v1/passing/call: an address to which datagrams were sent, and what kept one back."""

    address: str
    error: str = ""


class Underlay(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The node's side of the overlay: MTUs in bytes, UDP ports.

    ``device_port`` differs from ``port`` where another device, ``taken_by``, has that one.
    """

    node_ip: str
    protocol: str = "vxlan"
    port: int
    device_port: int = 0
    taken_by: str = ""
    mtu: int = 0
    underlay_mtu: int = 0


class Premises(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """GET /v1/premises: what a node's cluster brings into a mesh. Ranges and addresses as text.

    ``clock`` is the node's, in Unix seconds; ``lacking`` names features that its kernel has not;
    ``node_ports_taken`` are node ports of services that a process of the node listens on, too.
    """

    cluster: str
    cluster_id: int
    node: str
    version: str
    max_clusters: int
    pod_ranges: tuple[str, ...] = ()
    node_addresses: tuple[str, ...] = ()
    service_addresses: tuple[str, ...] = ()
    clock: float = 0.0
    underlay: Underlay | None = None
    kernel: str = ""
    lacking: tuple[str, ...] = ()
    node_ports_taken: tuple[str, ...] = ()


class Knocked(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """POST /v1/knock of an agent: one connection or datagram; how long it took, or why not.

    ``target`` is as it was asked. Without ``seconds`` and ``error`` a datagram was sent, and was
    neither answered nor refused.
    """

    target: str
    seconds: float | None = None
    error: str = ""
