"""The floor of a copy: a watch and a transaction for each of its messages, on bare gRPC.

`python tests/bench/kvstoremesh/bare.py TARGET ROUTES`, both as scale.py gives them: the target's
address, and JSON of `[[address, source prefix, target prefix], ...]`. No lease, no list, no check
of anything; it prints `ready` when every watch stands.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from kvstore import wire
from kvstore._grpc import grpc
from kvstore._proto import etcd_pb2 as rpc
from kvstore.lists import after_prefix

Routes = dict[int, tuple[bytes, bytes]]


async def copy(
    address: str, pairs: Sequence[tuple[str, str]], put: Any, born: asyncio.Event
) -> None:
    channel = grpc.aio.insecure_channel(address)
    stream = channel.stream_stream(
        wire.WATCH.path,
        request_serializer=rpc.WatchRequest.SerializeToString,
        response_deserializer=rpc.WatchResponse.FromString,
    )()
    routes: Routes = {}
    for number, (source, target) in enumerate(pairs, 1):
        routes[number] = source.encode(), target.encode()
        create = rpc.WatchCreateRequest(
            key=source.encode(), range_end=after_prefix(source.encode()), watch_id=number
        )
        await stream.write(rpc.WatchRequest(create_request=create))
    for _ in routes:
        await stream.read()
    born.set()
    while True:
        reply = await stream.read()
        source, target = routes[reply.watch_id]
        await put(rpc.TxnRequest(success=[op(event, source, target) for event in reply.events]))


def op(event: rpc.Event, source: bytes, target: bytes) -> rpc.RequestOp:
    key = target + event.kv.key[len(source) :]
    if event.type:
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=event.kv.value))


async def main(target: str, routes: Sequence[tuple[str, str, str]]) -> None:
    channel = grpc.aio.insecure_channel(target)
    put = channel.unary_unary(
        wire.TXN.path,
        request_serializer=rpc.TxnRequest.SerializeToString,
        response_deserializer=rpc.TxnResponse.FromString,
    )
    by_source: dict[str, list[tuple[str, str]]] = {}
    for address, source, prefix in routes:
        by_source.setdefault(address, []).append((source, prefix))
    async with asyncio.TaskGroup() as tasks:
        standing = [asyncio.Event() for _ in by_source]
        for (address, pairs), born in zip(by_source.items(), standing, strict=True):
            tasks.create_task(copy(address, pairs, put, born))
        for born in standing:
            await born.wait()
        print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
