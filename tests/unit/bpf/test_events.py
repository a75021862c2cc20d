"""Events of the data path: their bytes against contract datapath 1.14; layout.h asserts it, too."""

from struct import pack

import pytest

from bpf.layout_events import DropEvent, Event, TraceEvent, decode

PACKET = bytes(range(60))


def header(kind: int, subtype: int, *, captured: int = 60, version: int = 1) -> bytes:
    return pack("<BBHIIHH", kind, subtype, 0, 0xABCD, 1514, captured, version)


DROP = header(1, 160) + pack("<IIIHBbI", 0x10009, 0x20007, 0, 2, 3, 0, 5) + PACKET + bytes(68)
TRACE = header(4, 9) + pack("<IIHBBI", 0x10009, 0x20007, 0, 5, 1, 5) + bytes(16) + PACKET


@pytest.mark.parametrize(
    ("record", "event"),
    [
        (DROP, DropEvent(160, 0xABCD, 1514, 0x10009, 0x20007, 2, 3, 5, PACKET)),
        (TRACE, TraceEvent(9, 0xABCD, 1514, 0x10009, 0x20007, 5, PACKET)),
        (TRACE + bytes(68), TraceEvent(9, 0xABCD, 1514, 0x10009, 0x20007, 5, PACKET)),
    ],
)
def test_a_record_is_read_and_ends_where_the_capture_ends(record: bytes, event: Event):
    assert decode(record) == event


@pytest.mark.parametrize("whole", [DROP[:36], TRACE[:48]])
def test_a_record_cut_short_is_nothing(whole: bytes):
    assert decode(whole) is not None
    for size in range(len(whole)):
        assert decode(whole[:size]) is None


@pytest.mark.parametrize("record", [header(2, 0) + bytes(200), header(1, 1, version=2) + DROP[16:]])
def test_what_is_not_known_is_passed_over(record: bytes):
    assert decode(record) is None
