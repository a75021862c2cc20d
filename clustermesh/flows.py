"""What a monitor tells of packets: the values the agent streams over HTTP and meshctl prints.

GET /v1/monitor answers with one of these a line (newline-delimited JSON), for ever.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

DROP: Final = "drop"
TRACE: Final = "trace"


class FlowEnd(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", omit_defaults=True):
    """Where a packet comes from or goes to. What is not known is empty; port 0: there is none.

    ``services``: those of which this address and port is a backend, as ``namespace/name``.
    """

    address: str = ""
    port: int = 0
    identity: int = 0
    cluster: str = ""
    namespace: str = ""
    pod: str = ""
    node: str = ""
    labels: tuple[str, ...] = ()
    services: tuple[str, ...] = ()


class Flow(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", tag_field="kind", tag="flow"):
    """A packet that was dropped or passed.

    ``time`` is in Unix seconds; ``reason`` and ``code`` say why it was dropped (contract datapath
    2), ``point`` and ``direction`` where it was seen; ``size`` is that of the frame.
    """

    time: float
    node: str
    type: str
    direction: str
    point: str = ""
    reason: str = ""
    code: int = 0
    protocol: str = ""
    flags: str = ""
    size: int
    source: FlowEnd
    destination: FlowEnd


class Missed(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", tag_field="kind", tag="missed"
):
    """Events that were not told since the last such line.

    ``suppressed``: more than the kernel tells in a tenth of a second; ``lost``: no room in its
    ring; ``skipped``: the listener was too slow.
    """

    time: float
    node: str
    suppressed: int = 0
    lost: int = 0
    skipped: int = 0


Told = Flow | Missed


class Filter(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Which flows are told; every member that is not empty must hold.

    A pod is ``name`` or ``namespace/name``, a service ``namespace/name``.
    """

    type: str = ""
    from_cluster: str = ""
    to_cluster: str = ""
    from_pod: str = ""
    to_pod: str = ""
    to_service: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Filter":
        """From the parameters of a request; ``ValueError`` is a sentence for who asked."""
        known = [field.encode_name for field in msgspec.structs.fields(cls)]
        if unknown := sorted(query.keys() - set(known)):
            raise ValueError(f"unknown parameter {unknown[0]!r}; known are {', '.join(known)}")
        made = msgspec.convert(dict(query), cls)
        if made.type not in ("", DROP, TRACE):
            raise ValueError(f"type: expected {DROP} or {TRACE}, found {made.type!r}")
        if made.to_service and made.to_service.count("/") != 1:
            raise ValueError(f"to-service: expected NAMESPACE/NAME, found {made.to_service!r}")
        return made

    def query(self) -> dict[str, str]:
        """The parameters of a request."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if value}

    def wants(self, flow: Flow) -> bool:
        """Whether this flow is told."""
        checks: Sequence[tuple[str, bool]] = (
            (self.type, flow.type == self.type),
            (self.from_cluster, flow.source.cluster == self.from_cluster),
            (self.to_cluster, flow.destination.cluster == self.to_cluster),
            (self.from_pod, _is_pod(flow.source, self.from_pod)),
            (self.to_pod, _is_pod(flow.destination, self.to_pod)),
            (self.to_service, self.to_service in flow.destination.services),
        )
        return all(holds for asked, holds in checks if asked)


def _is_pod(end: FlowEnd, wanted: str) -> bool:
    return bool(end.pod) and wanted in (end.pod, f"{end.namespace}/{end.pod}")
