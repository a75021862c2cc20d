"""The small parts: waiting, limits, ranges, pace, messages."""

import asyncio
import subprocess
import sys
from importlib.resources import files
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given
from hypothesis import strategies as st

from kvstore._proto import etcd_pb2 as rpc
from kvstore.backoff import Backoff, rising
from kvstore.limits import Limiter
from kvstore.lists import after_prefix, to_bytes, to_text
from kvstore.pace import REST, WORK, Pace
from tests.support.clock import virtual


def test_waits_double_up_to_the_ceiling_and_begin_again() -> None:
    waits = Backoff(first=0.05, ceiling=1, jitter=0)
    assert list(islice(waits, 7)) == [0.05, 0.1, 0.2, 0.4, 0.8, 1, 1]
    waits.reset()
    assert next(waits) == 0.05


def test_waits_are_never_longer_than_without_jitter() -> None:
    waits = Backoff(first=1, ceiling=1, jitter=0.5, random=Random(0))
    seen = list(islice(waits, 200))
    assert 0.5 <= min(seen) < 0.55
    assert 0.95 < max(seen) <= 1


def test_what_is_missing_is_looked_for_at_a_rising_distance() -> None:
    waits = rising(step=0.25, ceiling=1, jitter=0)
    assert [next(waits) for _ in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    shorter = rising(step=4, ceiling=4, jitter=0.5, random=Random(0))
    assert all(2 <= next(shorter) <= 4 for _ in range(20))


@virtual
async def test_a_burst_is_free_and_then_the_rate_holds() -> None:
    limiter = Limiter(rate=20, bootstrap_rate=20)
    loop = asyncio.get_running_loop()
    for _ in range(20):
        async with limiter.turn():
            assert loop.time() == 0
    for _ in range(20):
        async with limiter.turn():
            pass
    assert 0.9 < loop.time() < 1.1


@virtual
async def test_the_first_synchronisation_is_not_slowed_down() -> None:
    limiter = Limiter(rate=1, bootstrap_rate=10_000)
    loop = asyncio.get_running_loop()
    for _ in range(5_000):
        async with limiter.turn():
            pass
    assert loop.time() == 0
    limiter.bootstrapped()
    for _ in range(11):
        async with limiter.turn():
            pass
    assert 9.9 < loop.time() < 10.1


@virtual
async def test_no_more_than_so_many_are_under_way() -> None:
    limiter = Limiter(rate=1000, bootstrap_rate=1000, inflight=3)
    under_way, most = 0, 0

    async def work() -> None:
        nonlocal under_way, most
        async with limiter.turn():
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(1)
            under_way -= 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(10):
            tasks.create_task(work())
    assert most == 3


@given(st.binary(max_size=6), st.binary(max_size=6))
def test_a_range_holds_exactly_the_keys_with_its_prefix(prefix: bytes, key: bytes) -> None:
    end = after_prefix(prefix)
    inside = key >= prefix and (end == b"\0" or key < end)
    assert inside == key.startswith(prefix)


@given(st.binary(max_size=50))
def test_any_key_survives_as_text(key: bytes) -> None:
    assert to_bytes(to_text(key)) == key


@virtual
async def test_bulk_work_rests_in_proportion() -> None:
    pace = Pace()
    loop = asyncio.get_running_loop()
    for _ in range(10):
        began = pace.begin()
        await asyncio.sleep(WORK / 2)
        await pace.ended(began)
    assert loop.time() == pytest.approx(10 * WORK / 2 + 5 * REST)


def test_the_shipped_descriptors_are_what_the_source_builds_to(tmp_path: Path) -> None:
    package = files("kvstore._proto")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{package}", "etcd.proto"]
    command += [f"--descriptor_set_out={tmp_path}/etcd.desc", f"--pyi_out={tmp_path}"]
    subprocess.run(command, check=True)
    built, shipped = (
        descriptor_pb2.FileDescriptorSet.FromString(data)
        for data in ((tmp_path / "etcd.desc").read_bytes(), (package / "etcd.desc").read_bytes())
    )
    assert built == shipped
    assert (tmp_path / "etcd_pb2.pyi").read_bytes() == (package / "etcd_pb2.pyi").read_bytes()


def test_every_method_that_is_called_is_one_that_etcd_has() -> None:
    from kvstore import users, wire

    declared = {
        f"/{method.containing_service.full_name}/{method.name}": method
        for service in rpc.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    called = [
        value
        for module in (wire, users)
        for value in vars(module).values()
        if isinstance(value, wire.Method)
    ]
    assert len(called) > 15
    for method in called:
        found = declared[method.path]
        assert method.request.DESCRIPTOR is found.input_type
        assert method.reply.DESCRIPTOR is found.output_type
