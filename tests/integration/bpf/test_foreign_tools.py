"""What foreign tools read of our maps: where they look, and the same as `meshctl bpf` shows."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from agent import preflight
from agent.cleanup import remove
from agent.settings import CILIUM_PINS, CleanupSettings
from bpf import pins, syscalls
from bpf.datapath import Datapath, Maps
from bpf.errors import BpfError
from bpf.kernel_maps import KernelMap
from bpf.layout import IpcacheKey, IpcacheValue, MetricsKey, TunnelKey, TunnelValue
from bpf.layout_ct import OUT, SERVICE, ConnectionBits, ConnectionKey, ConnectionValue
from bpf.layout_lb import (
    BackendValue,
    ReverseNatValue,
    ServiceFlag,
    ServiceKey,
    ServiceValue,
    SourceRangeKey,
    pack_backend_id,
    pack_rev_nat,
    pack_table,
)
from bpf.maps import MapKind
from clustermesh.meshctl import bpf as shown
from clustermesh.meshctl.maps import PROTOCOLS
from clustermesh.meshctl.pins import Here
from clustermesh.process import Fault
from tests.support.bpf import cgroup2_root
from tests.support.bpf_packets import ethernet, packed

pytestmark = pytest.mark.root

Entry = Mapping[str, Any]


@pytest.fixture
def globals_(bpffs: Path, root: Path) -> Path:
    """Where cilium-dbg looks, on the file system of our pins."""
    return bpffs / CILIUM_PINS


# --- pins -----------------------------------------------------------------------------------------


def test_maps_are_shared_where_foreign_tools_look(globals_: Path, datapath: Datapath):
    datapath.share_pins(globals_)
    datapath.share_pins(globals_)
    key, value = IpcacheKey(packed("10.2.0.5"), 32), IpcacheValue(9)
    datapath.maps.ipcache.put_many([(key.pack(), value.pack())])
    reader = KernelMap.pinned(globals_ / "cilium_ipcache", read_only=True)
    assert list(reader.items()) == [(key.pack(), value.pack())]
    reader.close()
    assert {path.name.partition("_")[0] for path in globals_.iterdir()} == {"cilium"}


def occupy(globals_: Path) -> Path:
    """Another program's ipcache is there."""
    globals_.mkdir(parents=True)
    fd = syscalls.map_create(MapKind.HASH, 4, 4, 4)
    syscalls.pin(fd, globals_ / "cilium_ipcache")
    os.close(fd)
    return globals_ / "cilium_ipcache"


def test_another_programs_pins_are_left_alone(globals_: Path, root: Path, datapath: Datapath):
    theirs = occupy(globals_)
    with pytest.raises(BpfError, match=r"cilium_ipcache is another program's map.*--cilium-pins"):
        datapath.share_pins(globals_)
    assert theirs not in pins.unshare(root, globals_)
    assert theirs.exists()


def test_our_own_shared_pins_are_no_sign_of_cilium(bpffs: Path, globals_: Path, datapath: Datapath):
    datapath.share_pins(globals_)
    preflight.check(bpf_root=bpffs, cgroup=cgroup2_root())


def test_another_programs_pins_are(bpffs: Path, globals_: Path, datapath: Datapath):
    theirs = occupy(globals_)
    with pytest.raises(Fault, match=f"a Cilium agent runs or ran on this node \\({theirs}"):
        preflight.check(bpf_root=bpffs, cgroup=cgroup2_root())


def test_cleanup_takes_shared_pins_along(
    bpffs: Path, globals_: Path, datapath: Datapath, tmp_path: Path
):
    datapath.share_pins(globals_)
    settings = CleanupSettings(bpf_root=bpffs, state_dir=tmp_path, device="cm_none", route_table=9)
    assert remove(settings)[:2] == [
        f"their pins under {globals_}", f"programs and maps pinned under {bpffs / 'clustermesh'}",
    ]  # fmt: skip
    assert list(globals_.iterdir()) == []
    assert remove(settings) == []


# --- contents -------------------------------------------------------------------------------------

NODE, NODE6 = "192.168.1.3", "fd00:30::3"
PODS = ("10.2.0.5", "fd00:2::5")
VIPS = ("10.96.0.10", "fd00:96::a")


def fill(maps: Maps, table_size: int) -> None:
    """Something of everything, in both families, with every field in use."""
    for pod, vip in zip(PODS, VIPS, strict=True):
        address, frontend = packed(pod), packed(vip)
        six = len(address) == 16
        ipcache = IpcacheKey(address, len(address) * 8, 3), IpcacheValue(196615, packed(NODE), 7, 1)
        maps.ipcache.put_many([(ipcache[0].pack(), ipcache[1].pack())])
        maps.tunnel.put_many([(TunnelKey(address, 3).pack(), TunnelValue(packed(NODE), 5).pack())])
        services, backends, revnat, tables = (
            (maps.services6, maps.backends6, maps.reverse_nat6, maps.tables6)
            if six
            else (maps.services4, maps.backends4, maps.reverse_nat4, maps.tables4)
        )
        backends.put_many([(pack_backend_id(2), BackendValue(address, 8080, 6, 0, 3, 4).pack())])
        master = ServiceValue(10800, 1, 7, ServiceFlag.SESSION_AFFINITY | ServiceFlag.INT_LOCAL, 2)
        services.put_many(
            [
                (ServiceKey(frontend, 80, 6).pack(), master.pack()),
                (ServiceKey(frontend, 80, 6, 1).pack(), ServiceValue(2, 0, 7).pack()),
                (ServiceKey(frontend, 80, 17, 2, 1).pack(), ServiceValue(9, 0, 300).pack()),
            ]
        )
        revnat.put_many([(pack_rev_nat(300), ReverseNatValue(frontend, 443).pack())])
        ranges = maps.source_ranges6 if six else maps.source_ranges4
        clients = packed("2001:db8::" if six else "203.0.113.0")
        ranges.put_many([(SourceRangeKey(7, clients, 33 if six else 24).pack(), b"\0")])
        tables.swap([pack_rev_nat(7)], pack_table([n % 3 for n in range(table_size)]))


def dumped(globals_: Path, name: str) -> list[Entry]:
    """A map as bpftool prints it by the map's own type information."""
    command = ["bpftool", "-j", "map", "dump", "pinned", str(globals_ / name)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return [entry.get("formatted", entry) for entry in told]


def wire(number: int, size: int = 2) -> int:
    """A number in network order that was printed as if it were in the machine's."""
    return int.from_bytes(number.to_bytes(size, "little"), "big")


def address_of(words: Sequence[int] | int, family: int) -> str:
    """An address from 32-bit words in network order, printed in the machine's."""
    listed = [words] if isinstance(words, int) else words
    return str(ip_address(pack("<4I", *listed)[: 16 if family == 6 else 4]
                          if len(listed) == 4 else pack("<I", *listed)))  # fmt: skip


def socket_of(entry: Entry, family: int) -> str:
    host = address_of(entry["address"], family)
    return f"[{host}]:{wire(entry['port'])}" if family == 6 else f"{host}:{wire(entry['port'])}"


def frontend_of(key: Entry, family: int) -> str:
    scope = "/i" if key["scope"] else ""
    return f"{socket_of(key, family)}/{PROTOCOLS[key['proto']]}{scope} ({key['slot']})"


FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])


@pytest.fixture
def filled(datapath: Datapath, globals_: Path) -> Path:
    datapath.share_pins(globals_)
    fill(datapath.maps, datapath.state.read().table_size)
    return globals_


def of(rows: Sequence[tuple[str, ...]], family: int) -> set[tuple[str, ...]]:
    """The rows of one family: of IPv6 the addresses have colons beside the port's."""
    return {row for row in rows if (" ".join(row).count(":") > 2) == (family == 6)}


def test_the_ipcache_reads_the_same(filled: Path, bpffs: Path):
    seen = set()
    for entry in dumped(filled, "cilium_ipcache"):
        key, value = entry["key"], entry["value"]
        where = address_of(key["address"], 4 if key["family"] == 1 else 6)
        endpoint = address_of(value["tunnel_endpoint"], 4)
        what = f"identity={value['identity']} encryptkey={value['key']}"
        flags = {0: "<none>", 1: "skiptunnel"}[value["flags"]]
        seen.add((
            f"{where}/{key['prefixlen'] - 32}@{key['cluster_id']}",
            f"{what} tunnelendpoint={endpoint}, flags={flags}",
        ))  # fmt: skip
    assert seen == set(shown.read_ipcache(Here(bpffs)))
    assert len(seen) == 2


def test_the_tunnel_map_reads_the_same(filled: Path, bpffs: Path):
    seen = set()
    for entry in dumped(filled, "cilium_tunnel_map"):
        key, value = entry["key"], entry["value"]
        base = address_of(key["address"], 4 if key["family"] == 1 else 6)
        node = address_of(value["address"], 4 if value["family"] == 1 else 6)
        seen.add((f"{base}@{key['cluster_id']}", f"{node}:{value['key']}"))
    assert seen == set(shown.read_tunnel(Here(bpffs)))
    assert len(seen) == 2


@FAMILIES
def test_services_read_the_same(filled: Path, bpffs: Path, family: int):
    seen = set()
    for entry in dumped(filled, f"cilium_lb{family}_services_v2"):
        value = entry["value"]
        union = value.get("", value)
        number = union["backend_id"]
        counts = f"{number} {value['count']}[{value['qcount']}] ({wire(value['rev_nat'])})"
        flags = f"[{value['flags'] & 255:#x} {value['flags'] >> 8:#x}]"
        seen.add((frontend_of(entry["key"], family), f"{counts} {flags}"))
    assert seen == of(shown.read_frontends(Here(bpffs)), family)
    assert len(seen) == 3


@FAMILIES
def test_backends_read_the_same(filled: Path, bpffs: Path, family: int):
    seen = set()
    for entry in dumped(filled, f"cilium_lb{family}_backends_v3"):
        value = entry["value"]
        where = f"{PROTOCOLS[value['proto']]}://{socket_of(value, family)}@{value['cluster_id']}"
        seen.add((str(entry["key"]), f"{where}[{value['zone']}]"))
    assert seen == of(shown.read_backends(Here(bpffs)), family)
    assert len(seen) == 1


@FAMILIES
def test_reverse_entries_read_the_same(filled: Path, bpffs: Path, family: int):
    seen = {
        (str(wire(entry["key"])), socket_of(entry["value"], family))
        for entry in dumped(filled, f"cilium_lb{family}_reverse_nat")
    }
    assert seen == of(shown.read_reverse_nat(Here(bpffs)), family)
    assert len(seen) == 1


@FAMILIES
def test_source_ranges_read_the_same(filled: Path, bpffs: Path, family: int):
    seen = {
        (
            f"{address_of(entry['key']['address'], family)}/{entry['key']['prefixlen'] - 32}",
            str(wire(entry["key"]["rev_nat"])),
        )
        for entry in dumped(filled, f"cilium_lb{family}_source_range")
    }
    assert seen == of(shown.read_source_ranges(Here(bpffs)), family)
    assert seen == {("203.0.113.0/24", "7") if family == 4 else ("2001:db8::/33", "7")}


CLIENTS = ("203.0.113.9", "2001:db8:f::9")


@FAMILIES
@pytest.mark.parametrize(("protocol", "kind"), [("TCP", ""), ("UDP", "_any")])
def test_connections_read_the_same(
    datapath: Datapath, globals_: Path, bpffs: Path, family: int, protocol: str, kind: str
):
    """Addresses and ports, which the contract has in an order of its own, and what is counted."""
    at = CLIENTS, VIPS, PODS
    client, vip, pod = (it[family == 6] for it in at)
    number = {"TCP": 6, "UDP": 17}[protocol]
    value = ConnectionValue(pack("<QQ", 0, 9), 3, 180, 5000, ConnectionBits.LOOPBACK, 300).pack()
    entries = [
        (ConnectionKey(packed(vip), packed(client), 40000, 80, number, SERVICE).pack(), value),
        (ConnectionKey(packed(client), packed(pod), 8080, 40000, number, OUT).pack(), value),
    ]
    with datapath.balancer() as balancer:
        datapath.share_pins(globals_)
        table = f"cilium_ct{kind}{family}_global"
        (into,) = (it for it in balancer.connections if it.name == table)
        into.put_many(entries)
        seen = {connection_of(entry, family) for entry in dumped(globals_, table)}
        rows = dict(shown.read_connections(Here(bpffs)))
    told = "expires=5000 Packets=3 Bytes=180"
    assert seen == {(way, told, "RevNAT=300") for way in rows}
    assert set(rows) == {
        f"{protocol} SVC {end(client, 40000)} -> {end(vip, 80)}",
        f"{protocol} OUT {end(client, 40000)} -> {end(pod, 8080)}",
    }
    assert all(told in it and "RevNAT=300" in it and "[ LBLoopback ]" in it for it in rows.values())


def end(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connection_of(entry: Entry, family: int) -> tuple[str, str, str]:
    """An entry of bpftool's in our words."""
    key, value = entry["key"], entry["value"]
    service = key["flags"] == SERVICE
    ends = [
        end(address_of(key[address], family), wire(key[port]))
        for address, port in (("daddr", "sport"), ("saddr", "dport"))
    ]
    one, other = reversed(ends) if service else ends
    kind = "SVC" if service else "OUT"
    told = f"expires={value['lifetime']} Packets={value['packets']} Bytes={value['bytes']}"
    way = f"{PROTOCOLS[key['nexthdr']]} {kind} {one} -> {other}"
    return way, told, f"RevNAT={wire(value['rev_nat'])}"


@FAMILIES
def test_selection_tables_read_the_same(filled: Path, bpffs: Path, family: int):
    """bpftool prints a map of maps as the inner maps' numbers, and an inner map as raw bytes."""
    rows = {row for row in shown.read_tables(Here(bpffs)) if row[0].endswith(f"v{family}")}
    (outer,) = dumped(filled, f"cilium_lb{family}_maglev")
    number = str(int.from_bytes(bytes(int(it, 16) for it in outer["value"]), "little"))
    command = ["bpftool", "-j", "map", "dump", "id", number]
    (inner,) = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    raw = bytes(int(it, 16) for it in inner["value"])
    words = [int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4)]
    assert rows == {(f"[7]/v{family}", f"[{' '.join(map(str, words))}]")}


def test_counters_read_the_same(filled: Path, bpffs: Path, root: Path):
    fd = syscalls.open_pin(next((root / "programs").iterdir()) / "cm_to_overlay")
    for _ in range(5):
        syscalls.run_program(fd, ethernet(bytes(28), protocol=0x0806))
    os.close(fd)
    command = ["bpftool", "-j", "map", "dump", "pinned", str(filled / "cilium_metrics")]
    (entry,) = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    told = entry["formatted"]
    key, values = told["key"], [cpu["value"] for cpu in told["values"]]
    assert MetricsKey(key["reason"], key["direction"], key["line"], key["file"]).reason == 139
    (row,) = shown.read_metrics(Here(bpffs))
    packets, size = (sum(value[what] for value in values) for what in ("count", "bytes"))
    assert row[2:5] == (str(packets), str(size), str(key["line"]))
    assert packets == 5
