"""The choice of a backend per packet in Python, written from contract datapath 3.6."""

from collections.abc import Sequence
from struct import unpack

from tests.support.bpf_packets import packed

SEED4, SEED6 = 0x71DCDA46, 0x92505688
_WORD = 0xFFFFFFFF


def _turn(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) & _WORD


def jhash_3words(a: int, b: int, c: int, seed: int) -> int:
    seed = (seed + 0xDEADBEEF + (3 << 2)) & _WORD
    return _final_words((a + seed) & _WORD, (b + seed) & _WORD, (c + seed) & _WORD)


def _final_words(a: int, b: int, c: int) -> int:
    c = ((c ^ b) - _turn(b, 14)) & _WORD
    a = ((a ^ c) - _turn(c, 11)) & _WORD
    b = ((b ^ a) - _turn(a, 25)) & _WORD
    c = ((c ^ b) - _turn(b, 16)) & _WORD
    a = ((a ^ c) - _turn(c, 4)) & _WORD
    b = ((b ^ a) - _turn(a, 14)) & _WORD
    return ((c ^ b) - _turn(b, 24)) & _WORD


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for by in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & _WORD) ^ _turn(c, by)
        c = (c + b) & _WORD
        a, b, c = b, c, a
    return a, b, c


def flow_number(client: str, client_port: int, service_port: int, proto: int) -> int:
    """Of a packet from a client to a service: on every node the same, for all its addresses."""
    raw = packed(client)
    words = unpack(f"<{len(raw) // 4}I", raw)
    dport, sport = (
        int.from_bytes(p.to_bytes(2, "big"), "little") for p in (client_port, service_port)
    )
    ports = dport << 16 | sport
    if len(words) == 1:
        return jhash_3words(words[0], ports, proto, SEED4)
    a, b, c = _mix(*words[:3])
    a, b, c = _mix((a + words[3]) & _WORD, (b + ports) & _WORD, (c + proto) & _WORD)
    return _final_words((a + SEED6) & _WORD, b, c)


def chosen(number: int, table: Sequence[int] | None, slots: Sequence[int]) -> int:
    """One look-up in the table, or, while there is none, a slot."""
    return table[number % len(table)] if table is not None else slots[number % len(slots)]
