"""What cilium_metrics counts, in words. Reasons: contract datapath 2; lines: metrics.h."""

from enum import IntEnum


class Reason(IntEnum):
    """Why a packet or a connection was counted; from 130 on it was dropped."""

    FORWARDED = 0
    LB_NO_SLOT = 5
    LB_NO_BACKEND = 6
    LB_REVERSE_FULL = 7
    LB_REVERSE_STALE = 8
    DROP_INVALID_SOURCE = 132
    DROP_INVALID_PACKET = 134
    DROP_UNKNOWN_L3 = 139
    DROP_NOT_WRITTEN = 141
    DROP_NO_TUNNEL_KEY = 147
    DROP_UNROUTABLE = 151
    DROP_NO_ROOM = 155
    DROP_NO_SERVICE = 158
    DROP_NO_ENDPOINT = 160
    DROP_INVALID_IDENTITY = 171
    DROP_SOURCE_RANGE = 177
    DROP_INVALID_CLUSTER = 192


class Direction(IntEnum):
    """Which way, seen from this node."""

    INGRESS = 1
    EGRESS = 2
    SERVICE = 3


class File(IntEnum):
    """Which program."""

    BALANCE = 1
    OVERLAY = 3
    SOCK = 5


class Line(IntEnum):
    """Which of the reason's cases."""

    PLAIN = 1
    UNKNOWN_SOURCE = 2
    UNSENDABLE = 3
    UNREACHABLE_SENT = 4
    STALE_LOCAL = 5
    SELECTED_BY_SLOT = 6
    FROM_NODE = 7
    RELATED = 8
    UNKNOWN_CONNECTION = 9


REASONS: dict[Reason, str] = {
    Reason.FORWARDED: "passed",
    Reason.LB_NO_SLOT: "the service names no backend where one was drawn",
    Reason.LB_NO_BACKEND: "the chosen backend is unknown",
    Reason.LB_REVERSE_FULL: "the way back could not be remembered",
    Reason.LB_REVERSE_STALE: "the service of an old connection is gone",
    Reason.DROP_INVALID_SOURCE: "the sender is no node of the mesh",
    Reason.DROP_INVALID_PACKET: "the packet is malformed",
    Reason.DROP_UNKNOWN_L3: "neither IPv4 nor IPv6",
    Reason.DROP_NOT_WRITTEN: "the packet could not be changed",
    Reason.DROP_NO_TUNNEL_KEY: "no tunnel key",
    Reason.DROP_UNROUTABLE: "a multicast, loopback or link-local address",
    Reason.DROP_NO_ROOM: "the connection could not be remembered",
    Reason.DROP_NO_SERVICE: "the service has no backend",
    Reason.DROP_NO_ENDPOINT: "no node has the destination",
    Reason.DROP_INVALID_IDENTITY: "an identity that no other node may use",
    Reason.DROP_SOURCE_RANGE: "a client outside of the service's source ranges",
    Reason.DROP_INVALID_CLUSTER: "an identity of another cluster than the sender's",
}

LINES: dict[Line, str] = {
    Line.PLAIN: "",
    Line.UNKNOWN_SOURCE: "sent as world: the source is not known yet",
    Line.UNSENDABLE: "sent as world: the identity is local to a node",
    Line.UNREACHABLE_SENT: "the sender was told",
    Line.STALE_LOCAL: "left untranslated: facts are stale, the pick is local",
    Line.SELECTED_BY_SLOT: "by slot: there is no selection table yet",
    Line.FROM_NODE: "sent on with this node's address, so that the answer comes back here",
    Line.RELATED: "an ICMP error about a translated connection",
    Line.UNKNOWN_CONNECTION: "left untranslated: it began before we served it",
}
