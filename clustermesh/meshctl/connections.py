"""Connections that are translated packet by packet, in cilium-dbg's words (contract 7) [pure]."""

from collections.abc import Iterable, Mapping
from typing import Final

from bpf.layout_ct import OUT, SERVICE, ConnectionBits, ConnectionKey, ConnectionValue
from clustermesh.meshctl.maps import PROTOCOLS, Cells, endpoint

MAPS: Final = (
    "cilium_ct4_global",
    "cilium_ct_any4_global",
    "cilium_ct6_global",
    "cilium_ct_any6_global",
)
_KINDS: Final[Mapping[int, str]] = {OUT: "OUT", 1: "IN", SERVICE: "SVC"}
_WORDS: Final = (
    (ConnectionBits.RX_CLOSING, "RxClosing"),
    (ConnectionBits.TX_CLOSING, "TxClosing"),
    (ConnectionBits.LOOPBACK, "LBLoopback"),
    (ConnectionBits.SEEN_NON_SYN, "SeenNonSyn"),
    (ConnectionBits.NODE_PORT, "NodePort"),
)


def connections(entries: Iterable[tuple[bytes, bytes]]) -> Cells:
    """``TCP SVC client -> service`` and what is known of it; sorted by that."""
    rows = ((ConnectionKey.unpack(key), ConnectionValue.unpack(value)) for key, value in entries)
    return sorted((_way(key), _state(key, value)) for key, value in rows)


def _way(key: ConnectionKey) -> str:
    """From the client to whom it asked. The key has an answer's order (contract 1.13)."""
    protocol, kind = PROTOCOLS.get(key.nexthdr, str(key.nexthdr)), _KINDS.get(key.flags, "REL")
    if key.flags == SERVICE:
        ends = endpoint(key.saddr, key.dport), endpoint(key.daddr, key.sport)
    else:
        ends = endpoint(key.daddr, key.sport), endpoint(key.saddr, key.dport)
    return f"{protocol} {kind} {ends[0]} -> {ends[1]}"


def _state(key: ConnectionKey, value: ConnectionValue) -> str:
    words = " ".join(word for bit, word in _WORDS if value.bits & bit)
    backend = value.backend_id if key.flags == SERVICE else 0
    return (
        f"expires={value.lifetime} Packets={value.packets} Bytes={value.size}"
        f" RxFlagsSeen={value.rx_flags:#04x} LastRxReport={value.last_rx_report}"
        f" TxFlagsSeen={value.tx_flags:#04x} LastTxReport={value.last_tx_report}"
        f" Flags={value.bits:#06x} [ {f'{words} ' if words else ''}] RevNAT={value.rev_nat}"
        f" SourceSecurityID={value.source_identity} IfIndex={value.ifindex} BackendID={backend}"
    )
