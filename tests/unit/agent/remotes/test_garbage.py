"""What a peer's etcd may hold that is no fact: it harms nobody, and is named in bounds."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec

from clustermesh import keys, logs
from clustermesh.keys import Kind, Layout
from clustermesh.remotes.progress import WARNINGS
from tests.support.remote_world import KINDS, World, list_again, living, service, until


def hostile(prefix: str) -> Iterator[tuple[str, bytes]]:
    """Keys under a prefix, and values, none of which is a fact. Odd keys come first: only the
    first few are named, of whichever kinds come through first.
    """
    good = keys.encode(service("paris", 7, "cart"))
    for raw in (b"\xff", b"shop/\xc3\x28", b"\xed\xa0\x80", b"\0", b"\n\x1b[31m"):
        yield prefix + raw.decode("utf-8", "surrogateescape"), good
    yield prefix + "shop/empty", b""
    yield prefix + "shop/large", b"x" * (3 << 19)
    yield prefix + "shop/latin", b'{"cluster":"paris","name":"\xff"}'
    yield prefix + "shop/null", b"null"
    yield prefix + "shop/deep", b"[" * 100_000
    yield prefix + "shop/cart/more", good
    yield prefix + "kart", good
    yield prefix, good
    yield prefix + "../../cart", good


async def test_garbage_of_every_sort_is_counted_named_and_passed_over(tmp_path: Path) -> None:
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    await peer.open_shop()
    places = [keys.prefix(kind, Layout.STATE, "paris") for kind in KINDS]
    garbage = [entry for place in places for entry in hostile(place)]
    cart = keys.key_of("paris", service("paris", 7, "cart"))
    log = io.StringIO()
    with logs.running(level="info", form="json", stream=log):
        async with living(world.remote("paris")) as remote:
            await until(lambda: remote.progress.ready)
            before = {kind: dict(world.sink.facts["paris", kind]) for kind in KINDS}
            await peer.put(cart, b"\xff\xfe")
            for key, value in garbage:
                await peer.put(key, value)
            await until(lambda: remote.progress.refused == len(garbage) + 1)
            assert {kind: world.sink.facts["paris", kind] for kind in KINDS} == before
            for key, _ in garbage[::2]:
                await peer.delete(key)
            await peer.publish(service("paris", 7, "desk"))
            await until(lambda: "shop/desk" in world.sink.names("paris", Kind.SERVICES))
            await list_again(peer, remote)
            await until(lambda: "shop/cart" not in world.sink.names("paris", Kind.SERVICES))
            assert world.sink.names("paris", Kind.SERVICES) == {"shop/till", "shop/desk"}
            assert msgspec.json.encode(remote.status(world.sink.count))
    told = [json.loads(line) for line in log.getvalue().splitlines()]
    named = [line["key"] for line in told if line["event"] == "value refused"]
    assert 0 < len(named) <= 2 * WARNINGS
    assert any("\\xff" in name for name in named), named
    assert world.troubles[-1:] in ([], [None])
