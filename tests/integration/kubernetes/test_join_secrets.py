"""The join listener as the chart runs it: its rights are enough, are all used, and are enforced."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from clustermesh.apiserver.joining import Joining
from clustermesh.apiserver.settings import Settings
from clustermesh.meshctl.places import place_of
from clustermesh.pki import Authority
from clustermesh.places import secrets as names
from clustermesh.settings import load
from clustermesh.trust.contact import Contact
from clustermesh.trust.guest import Guest
from clustermesh.trust.messages import JoinError
from tests.support import helm
from tests.support.joining import Pair
from tests.support.kube.kubeserver import ACCOUNT, ACCOUNT_TOKEN
from tests.support.kube.members import SPACE, Member, members
from tests.support.kube.rbac import granted

RENDERED = {(each["kind"], each["metadata"]["name"]): each for each in helm.golden("join")[1]}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Member]]:
    folder = tmp_path_factory.mktemp("join")
    with members(folder) as (kubeconfig, paris, _):
        document = json.loads(kubeconfig.read_text())
        document["users"][0]["user"]["token"] = ACCOUNT_TOKEN
        kubeconfig.write_text(json.dumps(document))
        yield kubeconfig, paris


class World:
    """Cluster paris with the chart's objects; a listener with the rights of its service account."""

    def __init__(self, top: Path, kubeconfig: Path, paris: Member) -> None:
        self.paris, self.guests = paris, Pair(top)
        paris.clear()
        for (kind, name), each in RENDERED.items():
            if kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
                paris.put(kind, name, each, version=each["apiVersion"])
            elif kind == "ConfigMap" or (kind == "Secret" and "data" not in each):
                paris.put(kind, name, each)
        pair = Authority.create("paris").pair()
        paris.secret("clustermesh-ca", **{"ca.crt": pair.certificate, "ca.key": pair.key})
        service = RENDERED["Service", "clustermesh-apiserver"]
        status = {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}
        self.bound = socket.create_server(("127.0.0.1", 0))
        for port in service["spec"]["ports"]:
            if port["name"] == "join":
                port["port"] = self.bound.getsockname()[1]
        paris.put("Service", "clustermesh-apiserver", {**service, "status": status})
        arguments = next(
            it["args"]
            for it in RENDERED["Deployment", "clustermesh-apiserver"]["spec"]["template"]["spec"][
                "containers"
            ]
            if it["name"] == "apiserver"
        )
        more = ("--kubeconfig", str(kubeconfig), "--kube-namespace", SPACE, "--join-peers=rome")
        settings = load(Settings, [*arguments, *more], program="x", summary="", env={})
        self.joining = Joining(settings, lambda _: None)

    async def token(self, guest: str = "cluster-a") -> str:
        made = await self.joining._create({"guest": guest, "hours": "1"})
        return str(made["token"])  # type: ignore[index]  # as JSON

    def joined(self, text: str) -> None:
        """What ``meshctl join`` does."""
        member = self.guests.a
        guest = Guest(text, member, place_of(member), max_clusters=255)
        contact = Contact(guest.token)
        guest.verify(contact.meet())
        answer, finish = guest.accept(contact.join(guest.request()))
        contact.finish(finish)
        guest.connect(answer)


@pytest.fixture
def world(servers: tuple[Path, Member], tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, *servers)
    yield made
    made.bound.close()


async def test_a_cluster_joins_and_all_that_is_kept_is_in_secrets(world: World):
    world.paris.secret(names.FOR_KVSTOREMESH, rome=b"left from another time")
    world.paris.kube.api.used.clear()
    serving = asyncio.create_task(world.joining.serve([world.bound]))
    try:
        text = await world.token()
        await asyncio.to_thread(world.joined, text)
        (listed,) = await world.joining._list({})  # type: ignore[misc]  # as JSON
        assert listed.state == "done"
        spare = await world.token()
        listed = (await world.joining._list({}))[-1]  # type: ignore[index]
        await world.joining._revoke({"id": listed.id})
        with pytest.raises(JoinError, match="revoked"):
            await asyncio.to_thread(world.joined, spare)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    held = world.paris.data("Secret", names.FOR_AGENTS) or {}
    assert sorted(held) == [
        "cluster-a", "cluster-a.etcd-client-ca.crt", "cluster-a.etcd-client.crt",
        "cluster-a.etcd-client.key",
    ]  # fmt: skip
    users = yaml.safe_load((world.paris.data("ConfigMap", names.USERS) or {})["users.yaml"])
    assert [one["name"] for one in users["users"]] == ["remote-rome", "remote-cluster-a"]
    assert len(world.paris.data("Secret", names.TOKENS) or {}) == 2
    assert (world.guests.a.config_dir / "paris").exists()
    role = RENDERED["Role", "clustermesh-join"]
    used = {(verb, what) for user, verb, what in world.paris.kube.api.used if user == ACCOUNT}
    assert granted([role]) - used == set()


@contextmanager
def renewed(world: World) -> Iterator[None]:
    """Somebody has put another token into the kubeconfig; the old one is good no more."""
    path, users = Path(str(world.joining._settings.kubeconfig)), world.paris.kube.api.users
    before = path.read_text()
    users["renewed"] = users.pop(ACCOUNT_TOKEN)
    path.write_text(before.replace(ACCOUNT_TOKEN, "renewed"))
    try:
        yield
    finally:
        users[ACCOUNT_TOKEN] = users.pop("renewed")
        path.write_text(before)


async def test_a_listener_outlives_its_credentials(world: World):
    """Outside of a pod they are in a kubeconfig."""
    assert await world.token()
    with renewed(world):
        assert await world.token()


async def test_other_secrets_are_out_of_its_reach(world: World):
    """Rights are by name: not even the etcd's own key can be read."""
    from clustermesh.errors import NoAnswer
    from clustermesh.places.connection import connection
    from clustermesh.places.objects import ObjectShelf

    settings = world.joining._settings
    made = connection("", str(settings.kubeconfig))
    for name in ("clustermesh-apiserver-server-cert", "somebody-elses"):
        with pytest.raises(NoAnswer, match="403"):
            await asyncio.to_thread(ObjectShelf(made, "Secret", SPACE, name).read, "tls.key")
    ca = ObjectShelf(made, "Secret", SPACE, "clustermesh-ca")
    with pytest.raises(NoAnswer, match="403"):
        await asyncio.to_thread(ca.put, "ca.key", b"x")


def test_who_may_try_is_the_operators_choice():
    rules = RENDERED["NetworkPolicy", "clustermesh-join"]["spec"]["ingress"]
    container = RENDERED["Deployment", "clustermesh-apiserver"]["spec"]["template"]["spec"]
    ports = {p["containerPort"] for c in container["containers"] for p in c["ports"]}
    assert {port["port"] for rule in rules for port in rule["ports"]} == ports
    (joining,) = [rule for rule in rules if "from" in rule]
    assert joining["from"] == [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    assert [port["port"] for port in joining["ports"]] == [9882]
