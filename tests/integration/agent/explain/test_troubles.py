"""What is wrong with a peer's etcd, found by a real agent in a real etcd: one agent, many faults.

What is wrong on the way there is in ``test_server``, and in the lab.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.explain import diagnose
from agent.explain.diagnose import Diagnoser
from clustermesh import gojson, keys
from clustermesh.keys import Kind, Layout
from clustermesh.model import Capabilities, ClusterConfig
from kvstore.client import PutOp
from kvstore.etcd import open_etcd
from tests.support.agent_process import (
    AgentProcess,
    Place,
    agent,
    own_cluster,
    place,
    remote_cluster,
)
from tests.support.etcd import Etcd, running_etcd
from tests.support.provoked import provokes, witnessed
from tests.support.remote_world import ME, node

pytestmark = [pytest.mark.root, pytest.mark.etcd]

HEARTBEAT = 2.0
"""Seconds of silence that the agent takes for death."""
PUBLISHED = remote_cluster("paris", 7, {"cart": ["10.7.0.9"]})
PARIS = {op.key: op.value for op in PUBLISHED if isinstance(op, PutOp)}
CONFIG = keys.cluster_config("paris")
BAD_NODE = "cilium/state/nodes/v1/paris/node-z"


class World:
    """A node with an agent, its own etcd and that of paris, where a test is paris's apiserver."""

    def __init__(self, node: Place, paris: Etcd, process: AgentProcess) -> None:
        self.node = node
        self.paris = paris
        self.process = process
        self._changed: set[str] = set()
        self._beaten = 0.0

    def put(self, key: str, value: bytes) -> None:
        self._changed.add(key)
        self.paris.ctl("put", key, value.decode())

    def drop(self, key: str) -> None:
        self._changed.add(key)
        self.paris.ctl("del", key)

    def mend(self) -> None:
        """Every key as it was at first."""
        for key in sorted(self._changed):
            if (value := PARIS.get(key)) is None:
                self.drop(key)
            else:
                self.put(key, value)
        self._changed.clear()

    def beat(self) -> None:
        """The heartbeat goes on."""
        if time.monotonic() - self._beaten > HEARTBEAT / 4:
            self._beaten = time.monotonic()
            self.paris.ctl("put", keys.HEARTBEAT, f"{self._beaten}")

    def found(self) -> dict[str, dict[str, str]]:
        """What is not well, by code."""
        (told,) = self.node.ask("/v1/troubleshoot?cluster=paris")
        witnessed(it["code"] for it in told["findings"])
        bad = {it["code"]: it for it in told["findings"] if it["result"] != "ok"}
        assert all(it["seen"] and it["fix"] for it in bad.values())
        return bad

    def until(self, *codes: str, beating: bool = True) -> dict[str, dict[str, str]]:
        """What is found once it is exactly this, and maybe what was refused earlier."""
        seen: dict[str, Any] = {}

        def same() -> bool:
            if beating:
                self.beat()
            seen.clear()
            seen.update(self.found())
            return seen.keys() - {"VALUES_REFUSED"} == set(codes)

        self.process.until(same)
        return seen


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with (
        place(tmp_path_factory.mktemp("troubles")) as node,
        node.etcd() as own,
        node.etcd() as paris,
    ):
        node.write(own, own_cluster({"cart": ["10.1.0.9"]}))
        node.write(paris, PUBLISHED)
        node.configure("paris", paris)
        waits = ("--heartbeat-limit", str(HEARTBEAT), "--config-interval", "0.2")
        quick = ("--retry-ceiling", "0.2", "--connect-timeout", "2", "--sync-timeout", "2")
        with agent(node, node.arguments(own, *waits, *quick)) as process:
            yield World(node, paris, process)


@pytest.fixture
def world(running: World) -> World:
    """Paris as it should be."""
    running.mend()
    running.until()
    return running


@provokes("FILE", "DNS", "TCP", "CONFIG", "HEARTBEAT", "CANARIES", "VALUES", "SYNCED")
def test_a_peer_as_it_should_be(world: World):
    world.until()


@provokes("HEARTBEAT_STALE", "DELETIONS_HELD")
def test_a_peer_that_has_fallen_silent(world: World):
    """Deletions are held from then on, and the agent says so."""
    world.drop(keys.key_of("paris", node("paris", 7, "node-a")))
    found = world.until("HEARTBEAT_STALE", "DELETIONS_HELD", beating=False)
    assert "has not changed for" in found["HEARTBEAT_STALE"]["seen"]
    assert "apiserver" in found["HEARTBEAT_STALE"]["fix"]


@provokes("HEARTBEAT_MISSING")
def test_a_peer_without_a_heartbeat(world: World):
    world.drop(keys.HEARTBEAT)
    assert "HEARTBEAT_MISSING" in world.found()


@provokes("CANARY_STALE")
def test_canaries_that_a_dead_control_plane_has_left(world: World):
    world.put(keys.HEARTBEAT, b"2020-01-01T00:00:00Z")
    assert "CANARY_STALE" in world.found()


@provokes("VALUE_CORRUPT", "VALUES_REFUSED")
def test_a_corrupt_value(world: World):
    world.put(BAD_NODE, b"{")
    found = world.until("VALUE_CORRUPT")
    world.process.until(lambda: "VALUES_REFUSED" in world.found())
    assert found["VALUE_CORRUPT"]["where"] == BAD_NODE


@provokes("ENCRYPTION")
def test_a_node_that_announces_encryption(world: World):
    encrypting = msgspec.structs.replace(node("paris", 7, "node-z"), encryption_key=255)
    world.put(BAD_NODE, keys.encode(encrypting))
    assert "WireGuard" in world.until("ENCRYPTION")["ENCRYPTION"]["seen"]


def config(number: int) -> bytes:
    capabilities = Capabilities(synced_canaries=True, max_connected_clusters=255)
    return gojson.encode(ClusterConfig(number, capabilities))


@provokes("CONFIG_REFUSED", "CANARY_MISSING", "NOT_SYNCED")
def test_a_peer_that_is_somebody_else_and_one_that_is_not_ready(world: World):
    """Its id is no id; then it is right again, and its first lists are not complete."""
    world.put(CONFIG, config(300))
    found = world.until("CONFIG_REFUSED")
    assert "expected 1 to 255, found 300" in found["CONFIG_REFUSED"]["seen"]
    assert found["CONFIG_REFUSED"]["fix"] == "give it an id in this range"
    world.drop(CONFIG)
    assert (
        "has no cilium/cluster-config/paris"
        in world.until("CONFIG_REFUSED")["CONFIG_REFUSED"]["seen"]
    )
    world.drop(keys.canary(Kind.SERVICES, Layout.STATE, "paris"))
    world.put(CONFIG, config(8))  # another id: all that was known is forgotten, nothing fits it
    found = world.until("CANARY_MISSING", "NOT_SYNCED", "VALUE_CORRUPT")
    assert "services" in found["CANARY_MISSING"]["seen"]


@provokes("NOT_USED")
def test_a_peer_whose_pods_are_ours(world: World):
    """Its node announces the pod range of this cluster."""
    ours = msgspec.structs.replace(node("paris", 1, "node-z"), cluster_id=7)
    world.put(BAD_NODE, keys.encode(ours))
    world.process.until(lambda: "10.1.0.0/24" in world.until("NOT_USED")["NOT_USED"]["seen"])


@provokes("FILE_UNREADABLE")
def test_a_client_file_that_is_none(world: World):
    file = world.node.remotes / "paris"
    before = file.read_text()
    file.write_text("endpoints: 7\n")
    try:
        assert (
            "endpoints" in world.until("FILE_UNREADABLE", beating=False)["FILE_UNREADABLE"]["seen"]
        )
    finally:
        file.write_text(before)


# --- an etcd that is sick, seen by the same code in this process, whose patience is shorter


def seen(folder: Path, url: str) -> dict[str, str]:
    """What is not well with an etcd, by code."""
    (folder / "paris").write_text(f"endpoints: ['{url}']\n")
    diagnoser = Diagnoser(
        ME, folder, opener=open_etcd, statuses=list, held=dict, heartbeat_limit=120.0
    )  # fmt: skip
    (told,) = asyncio.run(diagnoser.troubleshoot({"cluster": "paris"}))
    witnessed(it.code for it in told.findings)
    assert all(it.fix for it in told.findings if it.result != "ok")
    return {it.code: it.seen for it in told.findings if it.result != "ok"}


@provokes("ETCD_NO_ANSWER")
def test_an_etcd_that_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(diagnose, "PATIENCE", 0.5)
    with running_etcd() as etcd:
        etcd.pause()
        try:
            assert seen(tmp_path, etcd.url).keys() == {"ETCD_NO_ANSWER"}
        finally:
            etcd.resume()


@contextmanager
def web_server() -> Iterator[int]:
    """Answers every request that it has no such page."""
    with socket.create_server(("127.0.0.1", 0)) as made:

        def serve() -> None:
            while True:
                try:
                    client, _ = made.accept()
                except OSError:
                    return
                with client:
                    client.recv(4096)
                    client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield made.getsockname()[1]
        finally:
            made.shutdown(socket.SHUT_RDWR)
            thread.join(30)


@provokes("ETCD_UNAVAILABLE")
def test_a_server_that_is_no_etcd(tmp_path: Path):
    with web_server() as port:
        found = seen(tmp_path, f"http://127.0.0.1:{port}")
    assert found.keys() == {"ETCD_UNAVAILABLE"}
