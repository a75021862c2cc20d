"""Services over real sockets: a node's maps as a test writes them, and servers behind them."""

import selectors
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TypeVar

from bpf.datapath import Datapath
from bpf.layout_lb import (
    AffinityMatchKey,
    BackendState,
    BackendValue,
    ReverseNatValue,
    ServiceKey,
    ServiceValue,
    SourceRangeKey,
    pack_backend_id,
    pack_rev_nat,
    pack_table,
)
from tests.support.bpf import counted, inside
from tests.support.bpf_packets import packed

Result = TypeVar("Result")

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
PROTO = {TCP: 6, UDP: 17}
PORT = 80


@dataclass
class Lab:
    """A namespace with a server behind every backend address, and the maps that name them."""

    datapath: Datapath
    namespace: str
    cgroup: Path
    next_id: int = 1

    def run(self, work: Callable[[], Result]) -> Result:
        return inside(work, namespace=self.namespace, cgroup=self.cgroup)

    def backend(
        self, address: str, kind: socket.SocketKind, cluster: int = 0, *, port: int = 8080
    ) -> int:
        number = self.next_id
        self.next_id += 1
        value = BackendValue(packed(address), port, PROTO[kind], BackendState.ACTIVE, cluster)
        maps = self.datapath.maps
        into = maps.backends6 if ":" in address else maps.backends4
        into.put_many([(pack_backend_id(number), value.pack())])
        return number

    def service(
        self,
        vip: str,
        kind: socket.SocketKind,
        backends: list[int],
        *,
        rev_nat: int = 7,
        flags: int = 0,
        timeout: int = 0,
        table: list[int] | None = None,
        port: int = PORT,
        scope: int = 0,
    ) -> None:
        maps = self.datapath.maps
        v6 = ":" in vip
        services = maps.services6 if v6 else maps.services4
        revnats = maps.reverse_nat6 if v6 else maps.reverse_nat4
        tables = maps.tables6 if v6 else maps.tables4
        address, proto = packed(vip), PROTO[kind]
        if table is not None:
            tables.swap([pack_rev_nat(rev_nat)], pack_table(table))
        slots = [
            (
                ServiceKey(address, port, proto, n, scope).pack(),
                ServiceValue(number, 0, rev_nat).pack(),
            )
            for n, number in enumerate(backends, 1)
        ]
        revnats.put_many([(pack_rev_nat(rev_nat), ReverseNatValue(address, port).pack())])
        master = ServiceValue(timeout, len(backends), rev_nat, flags)
        key = ServiceKey(address, port, proto, 0, scope)
        services.put_many([*slots, (key.pack(), master.pack())])
        maps.affinity_match.put_many(
            [(AffinityMatchKey(number, rev_nat).pack(), b"\0") for number in backends]
        )

    def open_to(self, rev_nat: int, *prefixes: str) -> None:
        """Clients of these prefixes, for a frontend whose flags ask for it."""
        for prefix in map(ip_network, prefixes):
            maps = self.datapath.maps
            ranges = maps.source_ranges6 if prefix.version == 6 else maps.source_ranges4
            key = SourceRangeKey(rev_nat, prefix.network_address.packed, prefix.prefixlen)
            ranges.put_many([(key.pack(), b"\0")])

    def forget(self, vip: str, kind: socket.SocketKind, *, port: int = PORT) -> None:
        """The service is none of ours any more."""
        services = self.datapath.maps.services6 if ":" in vip else self.datapath.maps.services4
        services.drop_many([ServiceKey(packed(vip), port, PROTO[kind]).pack()])

    def counted(self, reason: int, line: int | None = None) -> int:
        return counted(self.datapath.maps.metrics.read(), reason, line)


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Servers:
    """Answers every request with the address it came to, TCP and UDP, from one thread."""

    def __init__(self, addresses: list[str]) -> None:
        self._ready = selectors.DefaultSelector()
        self._wake, self._stop = socket.socketpair()
        self._ready.register(self._wake, selectors.EVENT_READ)
        for address in addresses:
            for kind in (TCP, UDP):
                self._listen(address, kind)

    def _listen(self, address: str, kind: socket.SocketKind) -> None:
        server = socket.socket(family_of(address), kind)
        server.bind((address, 8080))
        if kind is TCP:
            server.listen(128)
        self._ready.register(server, selectors.EVENT_READ, (address, kind))

    def run(self) -> None:
        while True:
            for key, _ in self._ready.select():
                if key.fileobj is self._wake:
                    return
                assert isinstance(key.fileobj, socket.socket)
                self._answer(key.fileobj, *key.data)

    def _answer(self, server: socket.socket, address: str, kind: socket.SocketKind | None) -> None:
        if kind is TCP:
            connection, _ = server.accept()
            self._ready.register(connection, selectors.EVENT_READ, (address, None))
        elif kind is UDP:
            _, peer = server.recvfrom(100)
            server.sendto(address.encode(), peer)
        elif server.recv(100):
            server.sendall(address.encode())
        else:
            self._ready.unregister(server)
            server.close()

    def close(self) -> None:
        for key in list(self._ready.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._stop.close()
        self._ready.close()

    def stop(self) -> None:
        self._stop.send(b"x")


@contextmanager
def serving(namespace: str, addresses: list[str]) -> Iterator[None]:
    with running(inside(lambda: Servers(addresses), namespace=namespace)):
        yield


@contextmanager
def running(servers: Servers) -> Iterator[None]:
    """They answer meanwhile, from a thread of their own."""
    thread = threading.Thread(target=servers.run)
    thread.start()
    try:
        yield
    finally:
        servers.stop()
        thread.join()
        servers.close()


def ask(
    vip: str,
    kind: socket.SocketKind,
    *,
    family: socket.AddressFamily | None = None,
    port: int = PORT,
    timeout: float = 5,
) -> str:
    """Which backend answers a connected socket."""
    with socket.socket(family or family_of(vip), kind) as client:
        client.settimeout(timeout)
        client.connect((vip, port))
        client.sendall(b"who")
        return client.recv(100).decode()


def many(lab: Lab, vip: str, kind: socket.SocketKind, times: int = 60) -> Counter[str]:
    return lab.run(lambda: Counter(ask(vip, kind) for _ in range(times)))
