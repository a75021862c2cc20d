"""What a notification of the kernel is taken for."""

import pytest

from agent.network.events import News, meaning
from agent.network.routes import HEADER, RTMSG

OURS, TABLE = 4242, 8472
NEW_LINK, NEW_ADDRESS, NEW_ROUTE, DEL_ROUTE, NEW_RULE = 16, 20, 24, 25, 32


def notification(kind: int, *, table: int = TABLE, sender: int = 0) -> bytes:
    small = table if table < 256 else 252  # RT_TABLE_COMPAT
    body = RTMSG.pack(2, 24, 0, 0, small, 4, 253, 1, 0)
    body += (8).to_bytes(2, "little") + (1).to_bytes(2, "little") + bytes([10, 2, 0, 0])
    if table >= 256:
        body += (8).to_bytes(2, "little") + (15).to_bytes(2, "little")
        body += table.to_bytes(4, "little")
    return HEADER.pack(HEADER.size + len(body), kind, 0, 1, sender) + body


@pytest.mark.parametrize(
    ("datagram", "news"),
    [
        (notification(NEW_ROUTE, sender=OURS), News.NONE),
        (notification(DEL_ROUTE, sender=OURS), News.NONE),
        (notification(NEW_ROUTE, sender=99), News.TABLE),
        (notification(DEL_ROUTE), News.TABLE),
        (notification(NEW_ROUTE, table=8473), News.ELSEWHERE),
        (notification(DEL_ROUTE, table=254, sender=99), News.ELSEWHERE),
        (notification(NEW_RULE, sender=99), News.AROUND),
        (notification(NEW_LINK), News.TABLE),
        (notification(NEW_ADDRESS), News.TABLE),
    ],
)
def test_who_wrote_what_decides_whether_it_is_news(datagram: bytes, news: News) -> None:
    assert meaning(datagram, port=OURS, table=TABLE) is news
