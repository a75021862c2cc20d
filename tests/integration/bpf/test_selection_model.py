"""The choice of a backend, in C and in Python: same table, same number, same choice.

A UDP socket's number is its cookie, which a program can ask for; so each choice can be foretold.
"""

import os
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bpf.layout_lb import (
    BackendValue,
    ReverseSocketKey,
    ReverseSocketValue,
    ServiceKey,
    ServiceValue,
    pack_backend_id,
    pack_rev_nat,
    pack_table,
)
from bpf.specs import DatapathSettings
from tests.support.bpf import child_cgroup, inside, netns, seeded
from tests.support.bpf_packets import packed

pytestmark = pytest.mark.root

SO_COOKIE = 57
VIP, VIP6 = "10.96.0.10", "fd00:96::a"
SOCKETS = 40


def chosen(cookie: int, table: Sequence[int] | None, slots: Sequence[int]) -> int:
    """The model: one look-up in the table, or, while there is none, a slot."""
    number = cookie & 0xFFFFFFFF
    return table[number % len(table)] if table is not None else slots[number % len(slots)]


@pytest.fixture(params=[251, 1021, 2039], ids=lambda size: f"table-of-{size}")
def settings(request: pytest.FixtureRequest) -> DatapathSettings:
    return replace(DatapathSettings.small(), table_size=request.param)


@pytest.fixture
def place(datapath):
    name = f"cm-test-{os.getpid()}-model"
    with netns(name), child_cgroup(name) as cgroup:
        route = ["ip", "-n", name, "-6", "route", "add", "local", "fd00:1::/64", "dev", "lo"]
        subprocess.run(route, check=True)
        datapath.attach_sock_lb(cgroup)
        yield name, cgroup
        datapath.detach_sock_lb()


def connect_many(vip: str) -> list[int]:
    """Connected sockets' cookies; nothing is sent."""
    family = socket.AF_INET6 if ":" in vip else socket.AF_INET
    cookies = []
    for _ in range(SOCKETS):
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.connect((vip, 53))
            cookies.append(
                int.from_bytes(client.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")
            )
    return cookies


@pytest.mark.parametrize("vip", [VIP, VIP6], ids=["v4", "v6"])
def test_every_socket_gets_the_backend_that_the_model_foretells(datapath, settings, place, vip):
    chance = seeded(settings.table_size)
    maps, v6 = datapath.maps, ":" in vip
    services, backends = (
        (maps.services6, maps.backends6) if v6 else (maps.services4, maps.backends4)
    )
    tables, remembered = (
        (maps.tables6, maps.reverse_sockets6) if v6 else (maps.tables4, maps.reverse_sockets4)
    )
    namespace, cgroup = place
    for round_ in range(12):
        ids = chance.sample(range(1, 60_000), chance.randrange(1, 9))
        addresses = {
            n: packed(f"fd00:1::{n:x}" if v6 else f"127.{n >> 8}.{n & 255}.1") for n in ids
        }
        backends.put_many(
            [(pack_backend_id(n), BackendValue(a, 8080, 17).pack()) for n, a in addresses.items()]
        )
        table = None
        if round_ % 3:
            table = chance.choices(ids, weights=[chance.random() + 0.01 for _ in ids],
                                   k=settings.table_size)  # fmt: skip
            tables.swap([pack_rev_nat(round_ + 1)], pack_table(table))
        slots = [
            (ServiceKey(packed(vip), 53, 17, at).pack(), ServiceValue(n, 0, round_ + 1).pack())
            for at, n in enumerate(ids, 1)
        ]
        master = ServiceValue(0, len(ids), round_ + 1)
        services.put_many([*slots, (ServiceKey(packed(vip), 53, 17).pack(), master.pack())])
        remembered.drop_many([key for key, _ in remembered.items()])
        cookies = inside(lambda: connect_many(vip), namespace=namespace, cgroup=cgroup)
        found = {ReverseSocketKey.unpack(key): value for key, value in remembered.items()}
        assert {key.cookie: key.address for key in found} == {
            cookie: addresses[chosen(cookie, table, ids)] for cookie in cookies
        }
        expected = ReverseSocketValue(packed(vip), 53, round_ + 1)
        assert {ReverseSocketValue.unpack(value) for value in found.values()} == {expected}
