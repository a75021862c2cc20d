"""A remote cluster tried stage by stage: each fault is provoked and named by its cause."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.explain import diagnose
from agent.explain.diagnose import Diagnoser
from clustermesh import keys
from clustermesh.findings import Finding, Reach, Result
from clustermesh.http import Refused
from clustermesh.keys import Kind, Layout
from clustermesh.model import Capabilities
from clustermesh.pki import Authority
from clustermesh.remotes import way
from clustermesh.status import RemoteStatus
from kvstore.client import Denied, Reader, Unavailable
from kvstore.config import EtcdConfig
from tests.support.etcd import free_port
from tests.support.provoked import provokes, witnessed
from tests.support.remote_world import ME, Peer, node, opener

READY = RemoteStatus(name="paris", ready=True, connected=True, heartbeat_age=3.0, num_nodes=1)


@pytest.fixture
def port() -> Iterator[int]:
    """Somebody listens there; what an etcd would answer comes from memory."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made.getsockname()[1]


class Scene:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.peer = Peer("paris", 7)
        self.status: RemoteStatus | None = READY
        self.held: dict[str, str] = {}
        self.write(f"endpoints: ['http://127.0.0.1:{port}']\n")
        self.diagnoser = Diagnoser(
            ME,
            folder,
            opener=opener({"127.0.0.1": self.peer.store}),
            statuses=lambda: [self.status] if self.status else [],
            held=lambda: self.held,
            heartbeat_limit=120.0,
        )

    def write(self, text: str) -> None:
        (self.folder / "paris").write_text(text)

    async def found(self) -> list[Finding]:
        (diagnosis,) = await self.diagnoser.troubleshoot({"cluster": "paris"})
        assert (diagnosis.cluster, diagnosis.node, diagnosis.remote) == ("home", "node-a", "paris")
        findings = list(diagnosis.findings)
        witnessed(one.code for one in findings)
        assert all(bool(one.fix) is (one.result is not Result.OK) for one in findings)
        return findings

    async def bad(self) -> list[str]:
        return [one.code for one in await self.found() if one.result is not Result.OK]


async def test_what_works_is_ok_to_the_end(tmp_path: Path, port: int) -> None:
    scene = Scene(tmp_path, port)
    await scene.peer.open_shop()
    codes = [one.code for one in await scene.found()]
    assert codes == ["FILE", "DNS", "TCP", "CONFIG", "HEARTBEAT", "CANARIES", "VALUES", "SYNCED"]
    assert await scene.bad() == []


async def test_a_file_that_cannot_be_read_is_the_cause(tmp_path: Path, port: int) -> None:
    scene = Scene(tmp_path, port)
    scene.write("endpoints: 7\n")
    assert await scene.bad() == ["FILE_UNREADABLE"]


async def test_a_closed_port_is_the_cause_and_ends_the_row(tmp_path: Path) -> None:
    closed = free_port()
    scene = Scene(tmp_path, closed)
    assert [one.code for one in await scene.found()] == ["FILE", "DNS", "TCP_REFUSED"]


async def test_one_endpoint_that_works_is_enough(tmp_path: Path, port: int) -> None:
    scene = Scene(tmp_path, port)
    await scene.peer.open_shop()
    closed = free_port()
    scene.write(f"endpoints: ['http://127.0.0.1:{port}', 'http://127.0.0.1:{closed}']\n")
    bad = [one for one in await scene.found() if one.result is not Result.OK]
    assert [(one.code, one.result) for one in bad] == [("TCP_REFUSED", Result.WARNING)]


async def test_files_that_are_not_there_are_named(tmp_path: Path, port: int) -> None:
    scene = Scene(tmp_path, port)
    scene.write(
        f"endpoints: ['https://127.0.0.1:{port}']\ntrusted-ca-file: nowhere.crt\n"
        "cert-file: gone.crt\nkey-file: gone.key\n"
    )
    assert await scene.bad() == ["CLIENT_CERT_UNREADABLE", "CA_UNREADABLE"]


@provokes()
@pytest.mark.parametrize(
    ("age", "code"),
    [(0, "CLIENT_CERT"), (350, "CLIENT_CERT_EXPIRES"), (400, "CLIENT_CERT_EXPIRED")],
)
async def test_a_client_certificate_is_judged_by_its_end(
    tmp_path: Path, port: int, age: int, code: str
) -> None:
    scene, pair = Scene(tmp_path, port), (tmp_path / "own.crt", tmp_path / "own.key")
    issued = datetime.now(UTC) - timedelta(days=age)
    Authority.create("paris").client("remote-home", now=issued).write(*pair)
    scene.write(
        f"endpoints: ['http://127.0.0.1:{port}']\ncert-file: {pair[0]}\nkey-file: {pair[1]}\n"
    )
    assert (await scene.found())[1].code == code


async def test_an_etcd_that_takes_the_connection_and_says_nothing(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def silent(_: EtcdConfig) -> AsyncIterator[Reader]:
        await asyncio.Event().wait()
        yield scene.peer.store

    scene = Scene(tmp_path, port)
    monkeypatch.setattr(diagnose, "PATIENCE", 0.2)
    scene.diagnoser._opener = silent
    assert await scene.bad() == ["ETCD_NO_ANSWER"]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Denied("etcdserver: permission denied"), "ETCD_DENIED"),
        (Unavailable("no leader"), "ETCD_UNAVAILABLE"),
    ],
)
async def test_an_etcd_that_refuses_is_told_from_one_that_is_sick(
    tmp_path: Path, port: int, failure: Any, code: str
) -> None:
    scene = Scene(tmp_path, port)
    scene.peer.store.outage(failure)
    assert await scene.bad() == [code]


async def test_a_cluster_of_another_name_or_id_is_refused(tmp_path: Path, port: int) -> None:
    scene = Scene(tmp_path, port)
    assert await scene.bad() == ["CONFIG_REFUSED"]
    scene.peer.number = 300
    await scene.peer.describe()
    (failed,) = [one for one in await scene.found() if one.result is Result.FAILED]
    assert "expected 1 to 255" in failed.seen


async def test_a_peer_that_nobody_keeps_is_told_by_its_heartbeat(tmp_path: Path, port: int) -> None:
    scene = Scene(tmp_path, port)
    await scene.peer.describe()
    await scene.peer.canaries()
    assert await scene.bad() == ["HEARTBEAT_MISSING"]
    await scene.peer.beat("1")
    scene.status = msgspec.structs.replace(READY, heartbeat_age=500.0)
    assert await scene.bad() == ["HEARTBEAT_STALE"]


async def test_a_missing_canary_is_named(tmp_path: Path, port: int) -> None:
    scene = Scene(tmp_path, port)
    await scene.peer.open_shop()
    await scene.peer.delete(keys.canary(Kind.SERVICES, Layout.STATE, "paris"))
    bad = [one for one in await scene.found() if one.result is not Result.OK]
    assert [one.code for one in bad] == ["CANARY_MISSING"]
    assert "services" in bad[0].seen


async def test_canaries_that_a_dead_control_plane_left_are_stale(tmp_path: Path, port: int) -> None:
    scene = Scene(tmp_path, port)
    await scene.peer.open_shop()
    await scene.peer.beat("2020-01-01T00:00:00Z")
    scene.status = msgspec.structs.replace(READY, heartbeat_age=1.0)
    bad = [one for one in await scene.found() if one.result is not Result.OK]
    assert [one.code for one in bad] == ["CANARY_STALE"]
    assert "s old" in bad[0].seen


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("cilium/state/nodes/v1/paris/n1", b"{", "truncated"),
        ("cilium/state/ip/v1/default/10.7.0.9", b'{"IP": "10.7.0.8"}', "10.7.0.8"),
        ("cilium/state/services/v1/paris/shop/x", b'{"name": 7}', "name"),
    ],
)
async def test_a_corrupt_value_is_named_with_its_field(
    tmp_path: Path, port: int, key: str, value: bytes, reason: str
) -> None:
    scene = Scene(tmp_path, port)
    await scene.peer.open_shop()
    await scene.peer.put(key, value)
    bad = [one for one in await scene.found() if one.result is not Result.OK]
    assert [(one.code, one.where) for one in bad] == [("VALUE_CORRUPT", key)]
    assert reason in bad[0].seen


@pytest.mark.parametrize(("number", "name"), [(255, "WireGuard"), (3, "IPsec")])
async def test_encryption_that_a_node_announces_is_named(
    tmp_path: Path, port: int, number: int, name: str
) -> None:
    scene = Scene(tmp_path, port)
    await scene.peer.open_shop()
    encrypting = msgspec.structs.replace(node("paris", 7, "n1"), encryption_key=number)
    await scene.peer.publish(encrypting)
    bad = [one for one in await scene.found() if one.result is not Result.OK]
    assert [one.code for one in bad] == ["ENCRYPTION"]
    assert name in bad[0].seen


async def test_without_canaries_none_is_missed(tmp_path: Path, port: int) -> None:
    scene = Scene(tmp_path, port)
    await scene.peer.describe(capabilities=Capabilities(max_connected_clusters=255))
    await scene.peer.beat("1")
    assert await scene.bad() == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ready": False, "status": "still reading"}, "NOT_SYNCED"),
        ({"refused_values": 3}, "VALUES_REFUSED"),
        ({"held": "its heartbeat is old"}, "DELETIONS_HELD"),
    ],
)
async def test_what_the_agent_itself_has_met_is_told(
    tmp_path: Path, port: int, changes: dict[str, Any], code: str
) -> None:
    scene = Scene(tmp_path, port)
    await scene.peer.open_shop()
    scene.status = msgspec.structs.replace(READY, **changes)
    assert await scene.bad() == [code]


async def test_a_cluster_that_is_held_out_is_told(tmp_path: Path, port: int) -> None:
    scene = Scene(tmp_path, port)
    await scene.peer.open_shop()
    scene.held = {"paris": "its pod range overlaps another's"}
    assert await scene.bad() == ["NOT_USED"]


@pytest.mark.parametrize("query", [{"cluster": "lyon"}, {"name": "paris"}])
async def test_a_query_for_nobody_is_refused(
    tmp_path: Path, port: int, query: dict[str, str]
) -> None:
    scene = Scene(tmp_path, port)
    with pytest.raises(Refused):
        await scene.diagnoser.troubleshoot(query)


async def test_a_server_that_is_not_configured_can_be_tried(port: int) -> None:
    asked = Reach(endpoints=(f"http://127.0.0.1:{port}",), authority="")
    found = await way.reach({"reach": msgspec.json.encode(asked).decode()})
    assert [one.code for one in found] == ["DNS", "TCP"]


@pytest.mark.parametrize("text", ["", "{}", '{"endpoints": ["ftp://x"], "authority": ""}'])
async def test_a_question_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        await way.reach({"reach": text})
