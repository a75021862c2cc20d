"""meshctl on Kubernetes contexts: one member of ours, one whose nodes and etcd are Cilium's."""

import base64
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import yaml

from clustermesh.errors import UsageError
from clustermesh.findings import Finding, Premises, Result
from clustermesh.meshctl import api, gitops, main, performing, plan
from clustermesh.meshctl.context import hoisted
from clustermesh.meshctl.errors import MeshctlError
from clustermesh.meshctl.kube import members as reading
from clustermesh.meshctl.kube.pods import process
from clustermesh.meshctl.peering import peerings
from clustermesh.meshctl.sysdump import collect
from clustermesh.meshctl.sysdump.archive import Archive
from clustermesh.meshfile import Mesh
from clustermesh.pki import Authority
from clustermesh.status import ApiserverStatus
from clustermesh.version import VERSION
from kvstore.config import EtcdConfig
from tests.support.agents import agent
from tests.support.kube.execs import relaying
from tests.support.kube.faults import Fault
from tests.support.kube.kubeserver import ADMIN_TOKEN
from tests.support.kube.members import SPACE, Member, members
from tests.support.provoked import provokes, witnessed

PEERS = ["mine", "paris"]
AGENTS, CACHE, USERS = "cilium-clustermesh", "cilium-kvstoremesh", "clustermesh-remote-users"
STATUS = ApiserverStatus(
    cluster="mine", cluster_id=1, version="0.1.0", ready=True, started=0, source="", etcd=""
)

REACHED = Finding(code="TCP", result=Result.OK, where="192.0.2.2", seen="")
AGENT = {
    "/v1/premises": Premises(
        cluster="mine", cluster_id=1, node="n1", version=VERSION, max_clusters=255
    ),
    "/v1/reach": [REACHED],
}


class World(NamedTuple):
    """The two members, as the operator's kubeconfig has them."""

    kubeconfig: Path
    mine: Member
    paris: Member
    folder: Path

    def mesh(self) -> Mesh:
        return reading.mesh_of(["here", "there"], str(self.kubeconfig), SPACE)

    def do(self, task: performing.Task, **how: Any) -> performing.Result:
        how = {"timeout": 0.0, "report": lambda _: None, **how}
        return performing.perform(task, self.mesh(), PEERS, **how)

    def connect(self) -> performing.Result:
        return self.do(performing.CONNECT)

    def failures(self) -> dict[str, Result]:
        made = plan.make(self.mesh(), PEERS)
        witnessed(it.code for it in made.findings)
        bad = [it for it in made.findings if it.result is not Result.OK]
        assert all(it.fix for it in bad)
        return {it.code: it.result for it in bad}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("members")
    path = folder / "agent.sock"
    with members(folder) as (kubeconfig, here, there), agent(path, AGENT):
        yield World(kubeconfig, here, there, folder)


@pytest.fixture
def world(servers: World) -> World:
    mine, paris = servers.mine, servers.paris
    for member, ip, cidr in (
        (mine, "192.0.2.1", "10.1.0.0/24"),
        (paris, "192.0.2.2", "10.2.0.0/24"),
    ):
        member.kube.api.faults.waiting.clear()
        member.kube.api.options.accepts = True
        member.clear()
        member.exposed(ip)
        member.node(ip.replace("192.0.2", "198.51.100"), cidr)
    mine.ca("clustermesh-ca", servers.folder)
    paris.ca("cilium-ca", servers.folder)
    mine.control_plane("mine", 1)
    mine.put(
        "ConfigMap", USERS, {"data": {"users.yaml": "users:\n- {name: remote-x, role: remote}\n"}}
    )
    mine.pod("clustermesh-apiserver", "apiserver-0", "n1", "--api-listen=0.0.0.0:9880")
    mine.pod("clustermesh-agent", "agent-0", "n1", "--api-listen=127.0.0.1:9885")
    mine.kube.api.pods.programs["agent-0/agent"] = relaying(servers.folder)
    mine.kube.api.pods.ports["apiserver-0:9880"] = {"/v1/status": STATUS}
    paris.deployment("clustermesh", "--cluster-name=$(CLUSTER_NAME)")
    paris.put("ConfigMap", "cilium-config", {"data": {"cluster-name": "paris", "cluster-id": "7"}})
    return servers


def test_names_ids_and_endpoints_are_had_from_the_clusters(world: World):
    mine, paris = world.mesh().clusters
    assert (mine.name, mine.id, mine.cilium, mine.shared_user) == ("mine", 1, False, False)
    assert (paris.name, paris.id, paris.cilium, paris.shared_user) == ("paris", 7, True, True)
    assert paris.endpoints == ("https://paris.mesh.cilium.io:2379",)
    assert paris.host_aliases == {"paris.mesh.cilium.io": ("192.0.2.2",)}
    assert api.fetch(mine.apiserver, "/v1/status", ApiserverStatus) == STATUS
    (told,) = (process(node.agent) for node in mine.nodes)
    assert (told.container, told.socket) == ("agent", "/run/clustermesh/agent.sock")
    assert told.port == "", "only the node itself reaches it"


def test_cilium_gets_exactly_the_secret_that_it_reads_and_nothing_else(world: World):
    before = world.paris.everything()
    world.connect()
    after = world.paris.everything()
    written = after["secrets"].pop((SPACE, AGENTS))
    assert after == before
    assert written["type"] == "Opaque"
    secret = world.paris.data("Secret", AGENTS)
    assert secret is not None
    assert sorted(secret) == [
        "mine", "mine.etcd-client-ca.crt", "mine.etcd-client.crt", "mine.etcd-client.key",
    ]  # fmt: skip
    assert secret["mine"] == (
        b"endpoints:\n"
        b"- https://mine.mesh.cilium.io:2379\n"
        b"trusted-ca-file: /var/lib/cilium/clustermesh/mine.etcd-client-ca.crt\n"
        b"key-file: /var/lib/cilium/clustermesh/mine.etcd-client.key\n"
        b"cert-file: /var/lib/cilium/clustermesh/mine.etcd-client.crt\n"
        b"cilium-host-aliases:\n"
        b"  mine.mesh.cilium.io:\n"
        b"    ips:\n"
        b"    - 192.0.2.1\n"
    )
    assert secret["mine.etcd-client-ca.crt"] == world.mine.authority.certificate
    issued = secret["mine.etcd-client.crt"]
    assert world.mine.authority.vouches_for_pem(issued, "remote-paris")
    counted = [name for name, piece in secret.items() if b"endpoints:" in piece]
    assert counted == ["mine"]


def test_our_side_gets_the_secret_and_the_user(world: World, tmp_path: Path):
    world.connect()
    secret = world.mine.data("Secret", AGENTS)
    assert secret is not None
    (tmp_path / "paris").write_bytes(secret["paris"])
    config = EtcdConfig.load(tmp_path / "paris")
    assert config.host_aliases == {"paris.mesh.cilium.io": ("192.0.2.2",)}
    assert config.ignored == ()
    assert world.paris.authority.vouches_for_pem(secret["paris.etcd-client.crt"], "remote")
    users = yaml.safe_load((world.mine.data("ConfigMap", USERS) or {})["users.yaml"])["users"]
    assert [user["name"] for user in users] == ["remote-x", "remote-paris"]


def test_connecting_again_writes_nothing(world: World):
    world.connect()
    before = world.mine.everything(), world.paris.everything()
    assert world.connect().changes == ()
    assert (world.mine.everything(), world.paris.everything()) == before


def test_what_others_keep_in_the_secret_stays(world: World):
    world.paris.secret(AGENTS, lyon=b"endpoints: [https://lyon:2379]\n")
    world.connect()
    world.do(performing.DISCONNECT)
    assert world.paris.data("Secret", AGENTS) == {"lyon": b"endpoints: [https://lyon:2379]\n"}
    assert world.mine.data("Secret", AGENTS) is None, "what we made goes when it is empty"
    assert b"remote-paris" not in (world.mine.data("ConfigMap", USERS) or {})["users.yaml"]


def test_behind_a_kvstoremesh_agents_read_the_own_etcd(world: World):
    world.paris.secret(CACHE)
    world.connect()
    assert world.paris.data("Secret", AGENTS) == {
        "mine": b"endpoints:\n"
        b"- https://clustermesh-apiserver.kube-system.svc:2379\n"
        b"trusted-ca-file: /var/lib/cilium/clustermesh/local-etcd-client-ca.crt\n"
        b"key-file: /var/lib/cilium/clustermesh/local-etcd-client.key\n"
        b"cert-file: /var/lib/cilium/clustermesh/local-etcd-client.crt\n"
    }
    cache = world.paris.data("Secret", CACHE)
    assert cache is not None
    assert len(cache) == 4


def test_agents_take_the_way_to_their_etcd_that_the_chart_gives(world: World):
    way = "endpoints: ['https://paris.mesh.cilium.io:32379']\ncilium-host-aliases:\n"
    way += "  paris.mesh.cilium.io: {ips: [192.0.2.7]}\ncert-file: /etc/clustermesh-tls/tls.crt\n"
    world.paris.put("ConfigMap", "clustermesh-agent", {"data": {"etcd.yaml": way}})
    world.paris.secret(CACHE)
    world.connect()
    found = yaml.safe_load((world.paris.data("Secret", AGENTS) or {})["mine"])
    assert found["endpoints"] == ["https://paris.mesh.cilium.io:32379"]
    assert found["cilium-host-aliases"] == {"paris.mesh.cilium.io": {"ips": ["192.0.2.7"]}}
    assert found["cert-file"] == "/var/lib/cilium/clustermesh/local-etcd-client.crt"


def test_a_kvstoremesh_without_secrets_is_known_by_its_container(world: World):
    pod = {"spec": {"containers": [{"name": "apiserver"}, {"name": "kvstoremesh"}]}}
    body = {"spec": {"template": pod}}
    world.paris.put("Deployment", "clustermesh-apiserver", body, version="apps/v1")
    world.connect()
    assert list(world.paris.data("Secret", AGENTS) or {}) == ["mine"]
    assert len(world.paris.data("Secret", CACHE) or {}) == 4


def test_a_writer_in_between_is_met_with_another_try(world: World):
    world.paris.secret(AGENTS, lyon=b"endpoints: []\n")
    fault = Fault(where=f"PUT /api/v1/namespaces/{SPACE}/secrets/{AGENTS}", status=409)
    world.paris.kube.api.faults.add(fault)
    world.connect()
    assert len(world.paris.data("Secret", AGENTS) or {}) == 5


def test_a_half_that_fails_is_taken_back(world: World):
    before = world.mine.everything(), world.paris.everything()
    pattern = f"POST /api/v1/namespaces/{SPACE}/secrets"
    world.paris.kube.api.faults.add(Fault(where=pattern, status=403, times=9))
    with pytest.raises(api.NoAnswer, match="403"):
        world.connect()
    assert world.paris.everything() == before[1]
    mine = world.mine.everything()
    assert mine.get("secrets") == before[0].get("secrets")
    assert b"remote-paris" not in (world.mine.data("ConfigMap", USERS) or {})["users.yaml"]


def unread(world: World) -> Mesh:
    """As where nobody answered when the mesh was opened."""
    known = world.mesh().clusters
    bare = (msgspec.structs.replace(it, cilium=False, shared_user=False) for it in known)
    return Mesh(clusters=tuple(bare))


def test_a_member_that_was_silent_once_is_not_taken_for_another_kind(world: World):
    """Known from a mesh file alone, Cilium's shared user and our list of users look alike."""
    mesh, before = unread(world), world.paris.everything()
    performing.perform(performing.CONNECT, mesh, PEERS, timeout=0, report=lambda _: None)
    after = world.paris.everything()
    assert after["secrets"].pop((SPACE, AGENTS))
    assert after == before, "no users are made up for a cluster that keeps none"
    secret = world.mine.data("Secret", AGENTS) or {}
    assert world.paris.authority.vouches_for_pem(secret["paris.etcd-client.crt"], "remote")
    assert world.connect().changes == ()


def test_a_member_that_does_not_answer_is_not_one_that_has_nothing(world: World):
    mesh, before = unread(world), (world.mine.everything(), world.paris.everything())
    users = f"GET /api/v1/namespaces/{SPACE}/configmaps/{USERS}"
    world.paris.kube.api.faults.add(Fault(where=users, status=503, times=99))
    with pytest.raises(api.NoAnswer, match="503"):
        performing.perform(performing.CONNECT, mesh, PEERS, timeout=0, report=lambda _: None)
    assert (world.mine.everything(), world.paris.everything()) == before


def test_parting_needs_one_side_only(world: World):
    world.connect()
    mesh = world.mesh()
    world.paris.kube.api.options.accepts = False
    done = performing.perform(performing.DISCONNECT, mesh, PEERS, timeout=0, report=lambda _: None)
    assert world.mine.data("Secret", AGENTS) is None
    assert done.changes
    assert world.paris.data("Secret", AGENTS) is not None


def test_print_gives_what_connect_would_write(world: World):
    wanted = peerings(world.mesh(), PEERS)
    first = list(gitops.secrets(wanted))
    assert world.mine.data("Secret", AGENTS) is None
    world.connect()
    for made in gitops.secrets(wanted):
        member = world.paris if "mine" in made["data"] else world.mine
        pieces = {key: base64.b64decode(value) for key, value in made["data"].items()}
        assert pieces == member.data("Secret", AGENTS)
    assert [made["metadata"] for made in first] == [{"name": AGENTS, "namespace": SPACE}] * 2
    assert [note.split(":")[0] for note in gitops.notes(wanted)] == ["mine"]


def test_a_plan_reads_both_and_writes_nothing(world: World):
    before = world.mine.everything(), world.paris.everything()
    made = plan.make(world.mesh(), PEERS)
    assert (world.mine.everything(), world.paris.everything()) == before
    assert not made.failures
    assert len(made.changes) == 7, "Cilium's readers share a user"
    codes = {it.code for it in made.findings}
    assert {"APISERVER", "IDENTITY", "RANGES", "CA", "UNASKED", "PLAINTEXT"} <= codes
    assert {"AGENTS", "ETCD_REACHED"} <= codes, "asked on its own socket, through pods/exec"


def cilium(world: World, **settings: str) -> None:
    data = {"cluster-name": "paris", "cluster-id": "7"}
    data |= {key.replace("_", "-"): value for key, value in settings.items()}
    world.paris.put("ConfigMap", "cilium-config", {"data": data})


@provokes()
@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"enable_wireguard": "true"}, "ENCRYPTION"),
        ({"enable_ipsec": "true"}, "ENCRYPTION"),
        ({"routing_mode": "native"}, "TUNNEL_ABSENT"),
        ({"max_connected_clusters": "511"}, "MAX_CLUSTERS"),
    ],
)
def test_what_cilium_is_set_to_is_judged(world: World, settings: dict[str, str], code: str):
    cilium(world, **settings)
    assert world.failures()[code] is Result.FAILED


def test_a_key_that_a_cilium_node_announces_is_named(world: World):
    names = {"plural": "ciliumnodes", "kind": "CiliumNode"}
    versions = [{"name": "v2", "served": True}]
    spec = {"group": "cilium.io", "names": names, "scope": "Cluster", "versions": versions}
    from tests.support.kube.catalog import of_crd

    world.paris.kube.api.catalog.add(of_crd({"spec": spec}))
    node = {"spec": {"encryption": {"key": 3}, "ipam": {"podCIDRs": ["10.1.0.0/25"]}}}
    world.paris.put("CiliumNode", "n", node, version="cilium.io/v2")
    found = world.failures()
    assert found["ENCRYPTION"] is Result.FAILED
    assert found["POD_CIDR_OVERLAP"] is Result.FAILED


@provokes("PEER_USER_MISSING")
def test_users_of_cilium_are_its_own(world: World):
    world.paris.put("ConfigMap", USERS, {"data": {"users.yaml": "users: []\n"}})
    assert world.failures()["PEER_USER_MISSING"] is Result.FAILED
    listed = "users:\n- {name: remote-mine, role: remote}\n"
    world.paris.put("ConfigMap", USERS, {"data": {"users.yaml": listed}})
    assert "PEER_USER_MISSING" not in world.failures()
    world.connect()
    assert world.paris.data("ConfigMap", USERS) == {"users.yaml": listed.encode()}
    secret = world.mine.data("Secret", AGENTS) or {}
    assert world.paris.authority.vouches_for_pem(secret["paris.etcd-client.crt"], "remote-mine")


def test_an_etcd_that_nobody_reaches_is_named(world: World):
    service = {"spec": {"type": "ClusterIP", "ports": [{"port": 2379}]}}
    world.paris.put("Service", "clustermesh-apiserver", service)
    assert world.failures()["ENDPOINT_NONE"] is Result.FAILED


def policy(*blocks: str) -> dict[str, Any]:
    peers: list[Any] = [{"podSelector": {}}, *({"ipBlock": {"cidr": it}} for it in blocks)]
    spec = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": peers}]}
    return {"metadata": {"namespace": "shop"}, "spec": spec}


@provokes("NETWORK_POLICY")
def test_a_policy_that_lets_no_remote_pod_in_is_a_warning(world: World):
    world.mine.put("Namespace", "shop", {})
    annotations = {"service.cilium.io/global": "true"}
    web = {
        "metadata": {"namespace": "shop", "annotations": annotations},
        "spec": {"selector": {"app": "web", "tier": "front"}},
    }
    world.mine.put("Service", "web", web)
    world.mine.put("NetworkPolicy", "p", policy(), version="networking.k8s.io/v1")
    assert world.failures()["NETWORK_POLICY"] is Result.WARNING
    world.mine.put("NetworkPolicy", "p", policy("10.2.0.0/16"), version="networking.k8s.io/v1")
    assert "NETWORK_POLICY" not in world.failures()


def test_a_sysdump_has_the_logs_that_kubernetes_keeps(world: World):
    world.mine.kube.api.pods.logs = {
        "apiserver-0/apiserver": "published\n",
        "agent-0/agent": "synced\n",
    }
    found = {"/".join(place): content for place, content, _ in
             collect.everything(world.mesh(), ())}  # fmt: skip
    assert found["clusters/mine/logs/apiserver-0/apiserver.log"] == b"published\n"
    assert found["clusters/mine/logs/agent-0/agent.log"] == b"synced\n"
    asked = [it for it in world.mine.kube.api.requests if "/log?" in it]
    assert all("limitBytes=" in it for it in asked)


def test_a_sysdump_of_contexts_has_no_secret(world: World, tmp_path: Path):
    """Keys of Secrets, what a log told by mistake, and who asks: searched for in every part."""
    world.connect()
    names = (AGENTS, "clustermesh-ca", "cilium-ca")
    secrets = [
        piece
        for member in (world.mine, world.paris)
        for name in names
        for piece in (member.data("Secret", name) or {}).values()
        if b"PRIVATE KEY" in piece
    ]
    assert len(secrets) == 4
    told = f"Authorization: Bearer {ADMIN_TOKEN}\n".encode() + secrets[0]
    world.mine.kube.api.pods.logs = {"apiserver-0/apiserver": told.decode()}
    with Archive(tmp_path / "dump.tar.gz") as kept:
        for place, content, why in collect.everything(world.mesh(), ()):
            if content is None:
                kept.miss(place, why)
            else:
                kept.add(place, content)
    with tarfile.open(tmp_path / "dump.tar.gz") as tar:
        parts = [tar.extractfile(it) for it in tar.getmembers()]
        everything = b"".join(it.read() for it in parts if it).replace(b"\\n", b"\n")
    assert b"Authorization" in everything
    assert ADMIN_TOKEN.encode() not in everything
    for key in secrets:
        for line in key.splitlines()[1:-1]:
            assert line not in everything
            assert base64.b64encode(line) not in everything


def test_a_kvstoremesh_is_asked_where_its_container_listens(world: World):
    containers = [
        {"name": "apiserver", "args": ["--api-listen=0.0.0.0:9880", "--api-socket=/run/x.sock"]},
        {"name": "kvstoremesh", "args": ["--api-listen=0.0.0.0:9881", "--api-socket=/run/y.sock"]},
    ]
    world.mine.put("Pod", "apiserver-0", {
        "metadata": {"labels": {"k8s-app": "clustermesh-apiserver"}},
        "spec": {"nodeName": "n1", "containers": containers},
        "status": {"phase": "Running"},
    })  # fmt: skip
    mine = world.mesh().cluster("mine")
    assert process(mine.apiserver)[3:] == ("apiserver-0", "apiserver", "/run/x.sock", "9880")
    assert process(mine.kvstoremesh)[4:] == ("kvstoremesh", "/run/y.sock", "9881")


def test_of_a_rollout_the_pod_that_stays_is_asked(world: World):
    for name, ending in (("apiserver-00", {"deletionTimestamp": "2026-01-01T00:00:00Z"}),
                         ("apiserver-01", {})):  # fmt: skip
        world.mine.put("Pod", name, {
            "metadata": {"labels": {"k8s-app": "clustermesh-apiserver"}, **ending},
            "spec": {"nodeName": "n1", "containers": [{"name": "apiserver"}]},
            "status": {"phase": "Running"},
        })  # fmt: skip
    served = world.mine.kube.api.store.objects["pods"]
    assert "deletionTimestamp" in served[SPACE, "apiserver-00"]["metadata"]
    del served[SPACE, "apiserver-0"]
    assert process(world.mesh().cluster("mine").apiserver).pod == "apiserver-01"


@provokes("KUBERNETES_SILENT")
@pytest.mark.parametrize("context", ["there", "here"])
def test_an_api_server_that_is_silent_is_named(world: World, context: str):
    """Also where our own apiserver and agents are asked through it."""
    mesh = world.mesh()
    member = world.mine if context == "here" else world.paris
    member.kube.api.options.accepts = False
    made = plan.make(mesh, PEERS)
    witnessed(it.code for it in made.failures)
    (found,) = made.failures  # what cannot be known without it is no failure of its own
    assert found.code == "KUBERNETES_SILENT"
    assert f"context {context}: " in found.seen
    assert "503" in found.seen


def test_a_context_that_is_none_is_refused_in_a_sentence(world: World):
    with pytest.raises(UsageError, match="nowhere"):
        reading.mesh_of(["nowhere"], str(world.kubeconfig), SPACE)
    with pytest.raises(MeshctlError, match="neither the ConfigMap cilium-config"):
        reading.mesh_of(["here"], str(world.kubeconfig), "default")


def test_the_command_line_says_which_context_a_name_is(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = [
        "plan", *PEERS, "--context", "here", "--context", "there", "-o", "json",
        "--kubeconfig", str(world.kubeconfig), "-n", SPACE,
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["meshctl", *words])
    with pytest.raises(SystemExit) as end:
        main.main()
    told = capsys.readouterr()
    assert end.value.code == 0, told.err
    assert "mine is context here, namespace kube-system" in told.err
    assert "paris is context there, namespace kube-system" in told.err
    assert json.loads(told.out)["changes"]


def test_options_of_every_command_may_stand_anywhere():
    assert hoisted(["plan", "a", "--context", "x", "-n=y", "--no-color"]) == [
        "--context", "x", "-n=y", "--no-color", "plan", "a",
    ]  # fmt: skip
    assert hoisted(["monitor", "--", "-n", "x"]) == ["monitor", "--", "-n", "x"]
    inside = ["lab", "exec", "a/b", "ip", "-n", "x"]
    assert hoisted(inside) == inside


def test_an_authority_of_ciliums_chart_may_be_rsa(world: World):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    from clustermesh import pki

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = pki._name("Cilium CA")
    builder = pki._builder(name, name, key.public_key(), 100, None)  # type: ignore[arg-type]
    root = pki._as_authority(builder, path_length=1).sign(key, pki.hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    world.paris.secret("cilium-ca", **{"ca.crt": pki.pem_of(root), "ca.key": pem})
    world.connect()
    secret = world.mine.data("Secret", AGENTS) or {}
    authority = Authority.of(pki.pem_of(root), pem, names=("crt", "key"))
    assert authority.vouches_for_pem(secret["paris.etcd-client.crt"], "remote")
