"""One fact on demand, over the connection there is: for what is not worth remembering."""

from collections.abc import Iterable

from agent.facts import AnyFact, AnyKind
from agent.remotes.feeds import Feed
from clustermesh.checks import BadFact
from clustermesh.remotes.session import Session
from kvstore.client import StoreError


async def look_up(
    session: Session | None, feeds: Iterable[Feed], kind: AnyKind, name: str
) -> AnyFact | None:
    """None when there is no such fact, none that is believed, or nobody to ask."""
    feed = next((feed for feed in feeds if feed.kind is kind), None)
    if session is None or feed is None:
        return None
    try:
        entry = await session.get(feed.prefix + name)
        return None if entry is None else feed.decode(entry.key, entry.value)
    except (StoreError, BadFact):
        return None
