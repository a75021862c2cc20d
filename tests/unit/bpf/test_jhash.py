"""The model of the per-packet hash is Bob Jenkins' lookup3: by the value that he gives himself."""

from struct import unpack

from tests.support.bpf_selection import _final_words, _mix, chosen, flow_number, jhash_3words

WORD = 0xFFFFFFFF
GETTYSBURG = b"Four score and seven years ago"


def hashlittle(data: bytes, seed: int) -> int:
    """lookup3's hash of bytes, made of the model's two steps."""
    a = b = c = (0xDEADBEEF + len(data) + seed) & WORD
    while len(data) > 12:
        x, y, z = unpack("<III", data[:12])
        a, b, c = _mix((a + x) & WORD, (b + y) & WORD, (c + z) & WORD)
        data = data[12:]
    x, y, z = unpack("<III", data.ljust(12, b"\0"))
    return _final_words((a + x) & WORD, (b + y) & WORD, (c + z) & WORD)


def test_the_steps_give_the_published_values():
    assert hashlittle(GETTYSBURG, 0) == 0x17770551
    assert hashlittle(GETTYSBURG, 1) == 0xCD628161


def test_three_words_are_hashed_as_their_bytes_are():
    """With the same end: the word count is told as a length (3 << 2)."""
    words = (0x01020304, 0x50006000, 6)
    data = b"".join(word.to_bytes(4, "little") for word in words)
    assert jhash_3words(*words, 7) == hashlittle(data, 7)


def test_a_flow_is_its_client_its_ports_and_its_protocol():
    flow = flow_number("203.0.113.9", 40000, 80, 6)
    assert flow == flow_number("203.0.113.9", 40000, 80, 6)
    others = {
        flow_number("203.0.113.8", 40000, 80, 6),
        flow_number("203.0.113.9", 40001, 80, 6),
        flow_number("203.0.113.9", 40000, 81, 6),
        flow_number("203.0.113.9", 40000, 80, 17),
        flow_number("2001:db8::9", 40000, 80, 6),
    }
    assert len(others | {flow}) == 6


def test_without_a_table_a_slot_is_taken():
    assert chosen(7, None, [10, 20, 30]) == 20
    assert chosen(7, [1] * 7 + [2] * 4, [10]) == 2
