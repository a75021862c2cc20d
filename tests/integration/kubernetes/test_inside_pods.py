"""By a context, processes in pods are asked on their own unix sockets; nothing listens on TCP."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from bpf.errors import BpfError
from clustermesh import http, pinned
from clustermesh.errors import UsageError
from clustermesh.health import Board
from clustermesh.logs import Control
from clustermesh.meshctl import api, pins
from clustermesh.meshctl.kube import members as reading
from clustermesh.meshctl.kube import pods
from clustermesh.meshfile import Node
from clustermesh.places.connection import connection
from tests.support.kube.catalog import RBAC
from tests.support.kube.execs import Program, relaying
from tests.support.kube.kubeserver import ADMIN_TOKEN, READER, READER_TOKEN
from tests.support.kube.members import SPACE, Member, members


class World(NamedTuple):
    kubeconfig: Path
    mine: Member
    folder: Path

    def agent(self, kubeconfig: Path | None = None) -> str:
        """The URL of the only agent, as a command finds it."""
        pods.hang_up()
        mesh = reading.mesh_of(["here"], str(kubeconfig or self.kubeconfig), SPACE)
        (node,) = mesh.clusters[0].nodes
        return node.agent

    def execs(self) -> int:
        return sum("/exec?" in request for request in self.mine.kube.api.requests)

    def listen(self, address: str) -> None:
        argument = f"--api-listen={address}:9885"
        self.mine.pod("clustermesh-agent", "agent-0", "n1", argument)


def surface() -> http.Surface:
    async def flows() -> AsyncIterator[bytes]:
        for number in range(1_000_000):
            yield b"%d\n" % number
            await asyncio.sleep(0.01)

    return http.Surface(
        title="agent",
        board=Board(),
        log=Control("info"),
        status=lambda: {"name": "n1"},
        registry=CollectorRegistry(),
        reads={"/v1/large": lambda _: "x" * 300_000, "/v1/monitor": lambda _: flows()},
        actions={"/v1/reach": dict},
    )


@contextmanager
def served(path: Path) -> Iterator[None]:
    """The HTTP of an agent, on its unix socket."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with http.listening(socket=path) as sockets:
        task = asyncio.run_coroutine_threadsafe(http.serve(surface(), sockets), loop)
        try:
            yield
        finally:
            task.cancel()
            asyncio.run_coroutine_threadsafe(_all_ended(), loop).result(20)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(20)
            loop.close()


async def _all_ended() -> None:
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("inside")
    with members(folder) as (kubeconfig, here, _), served(folder / "agent.sock"):
        here.exposed("192.0.2.1")
        here.control_plane("mine", 1)
        yield World(kubeconfig, here, folder)


@pytest.fixture
def world(servers: World) -> Iterator[World]:
    found = servers.mine.kube.api
    found.pods.programs = {"agent-0/agent": relaying(servers.folder)}
    found.pods.protocols = ("v4.channel.k8s.io",)
    found.requests.clear()
    servers.listen("127.0.0.1")
    yield servers
    pods.hang_up()


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v5.channel.k8s.io"])
def test_what_is_for_the_socket_only_is_answered(world: World, protocol: str):
    world.mine.kube.api.pods.protocols = (protocol,)
    url = world.agent()
    assert api.fetch(url, "/v1/status", dict) == {"name": "n1"}
    assert api.ask(url, "/v1/reach", {"reach": "x"}, dict) == {"reach": "x"}
    assert api.fetch(url, "/v1/large", str) == "x" * 300_000
    assert api.get(url, "/nothing")[0] == 404
    assert world.execs() == 1, "one relay serves them all"


def test_an_answer_that_goes_on_comes_as_it_is_made(world: World):
    url = world.agent()
    with closing(api.lines(url, "/v1/monitor", timeout=20)) as lines:
        assert [next(lines) for _ in range(3)] == [b"0\n", b"1\n", b"2\n"]
    assert api.fetch(url, "/v1/status", dict) == {"name": "n1"}
    assert world.execs() == 2, "one that is cut off serves nobody else"


def test_a_relay_that_has_waited_for_long_is_not_trusted(world: World):
    url = world.agent()
    api.fetch(url, "/v1/status", dict)
    (kept,) = pods._ways()[url]._idle
    pods._ways()[url]._idle[0] = (time.monotonic() - pods.KEPT, kept[1])
    api.fetch(url, "/v1/status", dict)
    assert world.execs() == 2


def reader(world: World, *resources: str) -> Path:
    """A kubeconfig of somebody who may read, and exec if ``resources`` say so."""
    kinds = ["configmaps", "deployments", "pods", "secrets", "services", *resources]
    rule = {"apiGroups": ["*"], "resources": kinds, "verbs": ["get", "list"]}
    world.mine.put("ClusterRole", "r", {"rules": [rule]}, version=f"{RBAC}/v1")
    world.mine.put("ClusterRoleBinding", "r", {
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "r"},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": READER}],
    }, version=f"{RBAC}/v1")  # fmt: skip
    path = world.folder / "reader"
    path.write_text(world.kubeconfig.read_text().replace(ADMIN_TOKEN, READER_TOKEN))
    return path


def test_reading_rights_and_pods_exec_are_enough(world: World):
    url = world.agent(reader(world, "pods/exec"))
    assert api.ask(url, "/v1/reach", {}, dict) == {}


def test_without_the_right_it_is_said_once_and_tcp_is_asked(
    world: World, capsys: pytest.CaptureFixture[str]
):
    kubeconfig = reader(world)
    assert world.agent(kubeconfig) == "", "nobody but the node could ask it"
    world.listen("192.0.2.9")
    world.mine.kube.api.pods.ports["agent-0:9885"] = {"/v1/status": {"name": "tcp"}}
    capsys.readouterr()
    url = world.agent(kubeconfig)
    assert api.fetch(url, "/v1/status", dict) == {"name": "tcp"}
    assert world.execs() == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "no right to get pods/exec in namespace kube-system" in said[0]


def refused(world: World, program: Program | None) -> str:
    programs = {"agent-0/agent": program} if program else {}
    world.mine.kube.api.pods.programs = programs
    with pytest.raises(api.NoAnswer) as error:
        api.fetch(world.agent(), "/v1/status", dict)
    return str(error.value)


def test_why_a_process_cannot_be_asked_is_said(world: World):
    said = refused(world, lambda _: ("/nowhere/clustermesh-relay",))
    start = "pod agent-0 (agent) of context here cannot be asked: "
    assert said == start + "its image has no clustermesh-relay: it is of an older release"
    said = refused(world, relaying(world.folder / "elsewhere"))
    assert said.startswith(start)
    assert said.endswith("agent.sock: No such file or directory")
    assert "another release" in refused(world, lambda _: ("echo", "clustermesh-relay two"))
    assert "container not found" in refused(world, None)


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v5.channel.k8s.io"])
def test_what_keeps_from_asking_now_is_forgotten(world: World, protocol: str):
    """A command that goes on, such as `status --watch`, asks again."""
    parts, options = world.mine.kube.api.pods, world.mine.kube.api.options
    parts.protocols = (protocol,)
    url, works = world.agent(), parts.programs["agent-0/agent"]

    def silent(why: str) -> None:
        with pytest.raises(api.NoAnswer, match=why):
            api.fetch(url, "/v1/status", dict)

    options.accepts = False
    silent("503")
    options.accepts = True
    parts.programs.clear()
    silent("cannot be asked: .*container not found")
    parts.programs["agent-0/agent"] = relaying(world.folder / "elsewhere")
    silent("No such file or directory")
    parts.programs["agent-0/agent"] = works
    assert api.fetch(url, "/v1/status", dict) == {"name": "n1"}


def test_credentials_that_are_renewed_meanwhile_are_taken_up(world: World):
    path, users = world.folder / "renewed", world.mine.kube.api.users
    path.write_text(world.kubeconfig.read_text())
    url = world.agent(path)
    users["another"] = users.pop(ADMIN_TOKEN)
    try:
        with pytest.raises(api.NoAnswer, match="401"):
            api.fetch(url, "/v1/status", dict)
        path.write_text(world.kubeconfig.read_text().replace(ADMIN_TOKEN, "another"))
        connection("here", str(path))._standing._not_before = 0.0
        assert api.fetch(url, "/v1/status", dict) == {"name": "n1"}
    finally:
        users[ADMIN_TOKEN] = users.pop("another")


def maps(world: World, said: str) -> pins.Pins:
    """Those of a node whose container says this."""
    world.mine.kube.api.pods.programs["agent-0/agent"] = lambda _: ("echo", said)
    return pins.of(Node(name="n1", agent=world.agent(), bpf_root="/sys/fs/bpf"))


def test_maps_are_those_of_the_node_and_not_of_this_machine(world: World):
    asked: list[Sequence[str]] = []
    said = msgspec.json.encode(pinned.Told(entries=[(b"\x01", b"\x02\xff")])).decode()

    def program(command: Sequence[str]) -> Sequence[str]:
        asked.append(command)
        return ("echo", said)

    world.mine.kube.api.pods.programs["agent-0/agent"] = program
    found = pins.of(Node(name="n1", agent=world.agent(), bpf_root="/host/bpf"))
    assert found.entries(Path("clustermesh/maps/cm_nodes")) == [(b"\x01", b"\x02\xff")]
    assert asked == [["clustermesh-maps", "/host/bpf/clustermesh/maps/cm_nodes"]]


def test_maps_that_cannot_be_read_are_an_error_as_here(world: World):
    gone = msgspec.json.encode(pinned.Told(errno=2, error="No such file or directory")).decode()
    with pytest.raises(FileNotFoundError):
        maps(world, gone).entries(Path("x"))
    with pytest.raises(BpfError, match="refused"):
        maps(world, msgspec.json.encode(pinned.Told(error="refused")).decode()).entries(Path("x"))
    with pytest.raises(api.NoAnswer, match="gives no maps"):
        maps(world, "{").entries(Path("x"))
    world.mine.kube.api.pods.programs["agent-0/agent"] = lambda _: ("false",)
    with pytest.raises(api.NoAnswer, match="exit status 1"):
        pins.of(Node(name="n1", agent=world.agent())).entries(Path("x"))
    with pytest.raises(api.NoAnswer, match="another machine"):
        pins.of(Node(name="n1", agent="http://192.0.2.1:9885"))


def test_tcp_is_asked_where_an_older_image_has_no_relay(world: World):
    world.listen("192.0.2.9")
    world.mine.kube.api.pods.programs["agent-0/agent"] = lambda _: ("/nowhere/clustermesh-relay",)
    world.mine.kube.api.pods.ports["agent-0:9885"] = {"/v1/status": {"name": "tcp"}}
    url = world.agent()
    assert api.fetch(url, "/v1/status", dict) == {"name": "tcp"}
    assert api.fetch(url, "/v1/status", dict) == {"name": "tcp"}
    assert world.execs() == 1


def test_a_url_that_somebody_has_typed_is_refused_in_a_sentence():
    with pytest.raises(UsageError, match="'kube:agent-0' names no process of a pod"):
        api.get("kube:agent-0", "/v1/status")


def test_a_silent_process_is_no_answer(world: World):
    world.mine.kube.api.pods.programs["agent-0/agent"] = lambda _: (
        "sh", "-c", "echo clustermesh-relay 1; exec sleep 60",
    )  # fmt: skip
    with pytest.raises(api.NoAnswer, match=r"agent-0 .* does not answer .silent for too long"):
        api.get(world.agent(), "/v1/status", timeout=0.2)
