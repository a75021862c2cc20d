"""The chart: what it renders to is whole, and says to the programs what they understand."""

import itertools
import json
import re
import shutil
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml

from agent.settings import Settings as AgentSettings
from clustermesh.apiserver.settings import Settings as ApiserverSettings
from clustermesh.export import ExportSettings
from clustermesh.export import Flavour as Exported
from clustermesh.kvstoremesh.settings import Settings as KvstoremeshSettings
from clustermesh.settings import load
from clustermesh.sources.kubernetes.resources import IMPORTS, RECORDS, RESOURCES, Flavour
from clustermesh.sources.objects import ObjectKind
from kvstore.config import EtcdConfig
from kvstore.users import User
from tests.support import helm
from tests.support.helm import CASES, CHART, Manifest

SCHEMA: Manifest = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES: Manifest = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
HOW = "render the chart again: python -m tests.support.helm (needs helm)"


def objects(case: str) -> dict[tuple[str, str], Manifest]:
    """A case's objects by kind and name; each name once."""
    _, found = helm.golden(case)
    named = {(each["kind"], each["metadata"]["name"]): each for each in found}
    assert len(named) == len(found)
    return named


def containers(case: str) -> Iterator[tuple[Manifest, Manifest]]:
    """Pod specs and their containers."""
    for (kind, _), each in objects(case).items():
        if kind in {"Deployment", "DaemonSet"}:
            spec = each["spec"]["template"]["spec"]
            for container in spec["containers"]:
                yield spec, container


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_here_is_what_the_chart_renders_to(case: str) -> None:
    assert helm.golden(case)[0] == helm.fingerprint(), HOW
    if shutil.which("helm"):
        assert helm.golden(case)[1] == helm.render(CASES[case]), HOW


@pytest.mark.parametrize("case", CASES)
def test_whatever_a_pod_mounts_is_there(case: str) -> None:
    made = set(objects(case))
    made |= {
        ("Secret", each["spec"]["secretName"])
        for (kind, _), each in objects(case).items()
        if kind == "Certificate"
    }
    auto = CASES[case].get("tls", {}).get("auto", True)
    for spec, container in containers(case):
        volumes = {each["name"]: each for each in spec["volumes"]}
        mounted = {each["name"] for each in container["volumeMounts"]}
        assert mounted <= volumes.keys()
        for volume in volumes.values():
            for kind, name in _wants(volume):
                assert (kind, name) in made or (kind == "Secret" and not auto), name
        account = ("ServiceAccount", spec["serviceAccountName"])
        assert account in made


def _wants(volume: Manifest) -> Iterator[tuple[str, str]]:
    if "configMap" in volume and not volume["configMap"].get("optional"):
        yield "ConfigMap", volume["configMap"]["name"]
    if "secret" in volume and not volume["secret"].get("optional"):
        yield "Secret", volume["secret"]["secretName"]
    for source in volume.get("projected", {}).get("sources", ()):
        if not source["secret"].get("optional"):
            yield "Secret", source["secret"]["name"]


@pytest.mark.parametrize("case", CASES)
def test_selectors_find_their_pods(case: str) -> None:
    for (kind, name), each in objects(case).items():
        if kind in {"Deployment", "DaemonSet"}:
            wanted = each["spec"]["selector"]["matchLabels"]
            assert wanted.items() <= each["spec"]["template"]["metadata"]["labels"].items()
        if kind == "Service":
            pods = objects(case)["Deployment", name]["spec"]["template"]
            assert each["spec"]["selector"].items() <= pods["metadata"]["labels"].items()
            ports = {p["name"] for c in pods["spec"]["containers"] for p in c["ports"]}
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports


@pytest.mark.parametrize("case", CASES)
def test_the_programs_take_the_arguments_they_are_given(case: str) -> None:
    known = {
        "clustermesh-apiserver": ApiserverSettings,
        "clustermesh-agent": AgentSettings,
        "kvstoremesh": KvstoremeshSettings,
    }
    asked = {"$(NODE_IP)": "192.0.2.1", "$(NODE_NAME)": "n1", "$(POD_IP)": "192.0.2.2"}
    for _, container in containers(case):
        program = container["command"][0]
        if program not in known:
            continue
        arguments = [
            re.sub(r"\$\(\w+\)", lambda m: asked[m[0]], each) for each in container["args"]
        ]
        settings = load(known[program], arguments, program=program, summary="", env={})
        assert settings.cluster_name == "paris"
        named = {each.split("=")[0].removeprefix("--") for each in container["args"]}
        for field in msgspec.structs.fields(known[program]):
            remote = field.encode_name == "clustermesh-config" and (
                program != "clustermesh-apiserver" or "mcs-api" in named
            )
            if field.encode_name == "etcd-config" or remote:
                assert field.encode_name in named


@pytest.mark.parametrize("case", CASES)
def test_etcd_client_files_are_understood(case: str, tmp_path) -> None:
    for (kind, name), each in objects(case).items():
        for file, text in {**each.get("stringData", {}), **each.get("data", {})}.items():
            if "endpoints:" in text:
                path = tmp_path / name / file
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
                config = EtcdConfig.load(path)
                assert [each.secure for each in config.endpoints] == [True], kind


def test_behind_a_kvstoremesh_agents_read_their_own_cluster_alone() -> None:
    made = objects("kvstoremesh")
    ways = {
        name: made["Secret", name]["stringData"]["rome"]
        for name in ("cilium-kvstoremesh", "cilium-clustermesh")
    }
    assert "https://rome.mesh.cilium.io:2379" in ways["cilium-kvstoremesh"]
    assert "https://clustermesh-apiserver.kube-system.svc:2379" in ways["cilium-clustermesh"]
    for workload, secret in (
        ("Deployment", "cilium-kvstoremesh"),
        ("DaemonSet", "cilium-clustermesh"),
    ):
        [(_, each)] = [(name, each) for name, each in made.items() if name[0] == workload]
        spec = each["spec"]["template"]["spec"]
        [volume] = [each for each in spec["volumes"] if each["name"] == "remotes"]
        files = {
            f"/var/lib/cilium/clustermesh/{item['path']}"
            for source in volume["projected"]["sources"]
            for item in source["secret"].get("items", ())
        }
        sources = [source["secret"]["name"] for source in volume["projected"]["sources"]]
        assert secret in sources
        wanted = yaml.safe_load(ways[secret])
        assert {wanted["trusted-ca-file"], wanted["cert-file"], wanted["key-file"]} <= files


def test_cert_manager_is_asked_for_what_helm_would_make() -> None:
    asked = {
        each["spec"]["secretName"]: each["spec"]["commonName"]
        for (kind, _), each in objects("kvstoremesh").items()
        if kind == "Certificate"
    }
    made = {
        name
        for kind, name in objects("core")
        if kind == "Secret" and name.startswith("clustermesh-apiserver-")
    }
    assert asked.keys() == made
    assert asked["clustermesh-apiserver-remote-cert"] == "remote-paris"
    assert ("Secret", "clustermesh-ca") not in objects("kvstoremesh")
    server = objects("kvstoremesh")["Certificate", "clustermesh-apiserver-server-cert"]["spec"]
    assert {"*.mesh.cilium.io", "paris.example.test"} <= set(server["dnsNames"])
    assert {"127.0.0.1", "::1", "192.0.2.9"} == set(server["ipAddresses"])


def test_peers_are_users_of_the_etcd() -> None:
    text = objects("cilium")["ConfigMap", "clustermesh-remote-users"]["data"]["users.yaml"]
    users = msgspec.convert(yaml.safe_load(text)["users"], list[User])
    assert users == [User("remote-rome", "remote"), User("remote-oslo", "remote")]


@pytest.mark.parametrize(
    ("case", "more"),
    [("join", set()), ("joined", {("Secret", "cilium-kvstoremesh")})],
)
def test_what_joining_has_filled_is_never_removed_by_helm(
    case: str, more: set[tuple[str, str]]
) -> None:
    """Agents would drain every cluster, were it gone."""
    policies = {
        where: each["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
        for where, each in objects(case).items()
    }
    filled = ("cilium-clustermesh", "clustermesh-join-peers", "clustermesh-join-tokens")
    kept = {("ConfigMap", "clustermesh-remote-users"), *(("Secret", name) for name in filled)}
    assert {where for where, policy in policies.items() if policy == "keep"} == kept | more


@pytest.mark.parametrize("case", ["join", "joined", "policy"])
def test_who_has_joined_is_not_rewound_by_rendering(case: str) -> None:
    assert "data" not in objects(case)["ConfigMap", "clustermesh-remote-users"]
    (apiserver,) = [it for _, it in containers(case) if it["name"] == "apiserver"]
    named = [word for word in apiserver["args"] if word.startswith("--join-peers")]
    assert named == ["--join-peers=rome"] * (case == "joined")


def test_a_closed_listener_is_nowhere() -> None:
    made = objects("joined")
    assert ("NetworkPolicy", "clustermesh-join") not in made
    assert [it["name"] for it in made["Service", "clustermesh-apiserver"]["spec"]["ports"]] == [
        "etcd"
    ]
    (apiserver,) = [it for _, it in containers("joined") if it["name"] == "apiserver"]
    assert "--join-secrets" in apiserver["args"]
    assert not any(word.startswith("--join-listen") for word in apiserver["args"])
    assert [port["name"] for port in apiserver["ports"]] == ["api"]


@pytest.mark.parametrize(("case", "behind"), [("join", False), ("joined", True)])
def test_what_joins_is_kept_where_the_kvstoremesh_reads_it(case: str, behind: bool) -> None:
    """The apiserver is told whether there is one: a Secret may be left from another time."""
    (apiserver,) = [it for _, it in containers(case) if it["name"] == "apiserver"]
    rights = {
        (name, verb)
        for rule in objects(case)["Role", "clustermesh-join"]["rules"]
        for name in rule["resourceNames"]
        for verb in rule["verbs"]
    }
    assert ("--join-kvstoremesh" in apiserver["args"]) is behind
    assert (("cilium-kvstoremesh", "update") in rights) is behind
    assert (("cilium-kvstoremesh", "get") in rights) is behind


def test_the_network_policy_may_be_left_to_the_operator() -> None:
    made = objects("policy")
    assert not any(kind == "NetworkPolicy" for kind, _ in made)
    assert "join" in {
        it["name"] for it in made["Service", "clustermesh-apiserver"]["spec"]["ports"]
    }


def exported(flavour: Flavour, *, mcs_api: bool) -> frozenset[ObjectKind]:
    """The kinds that the apiserver follows."""
    settings = ExportSettings(
        cluster="paris", cluster_id=7, flavour=Exported(flavour), mcs_api=mcs_api
    )
    return settings.kinds


@pytest.mark.parametrize("case", CASES)
def test_the_role_allows_what_is_followed_and_no_more(case: str) -> None:
    chosen = CASES[case].get("apiserver", {})
    flavours = [Flavour(each) for each in [chosen.get("flavour", "auto")] if each != "auto"]
    flavours = flavours or list(Flavour)
    wanted = {
        (resource.group, resource.plural)
        for flavour in flavours
        for resource in RESOURCES[flavour]
        if resource.kind in exported(flavour, mcs_api=chosen.get("mcsApi", False))
    }
    imports = chosen.get("mcsApi", False)
    group = IMPORTS.group
    statuses = {(group, "serviceexports/status"), (group, "serviceimports/status")}
    if imports:
        wanted |= {(group, IMPORTS.plural), *statuses}
    if Flavour.CORE in flavours:
        wanted.add((RECORDS.group, RECORDS.plural))
    role = objects(case)["ClusterRole", "clustermesh-apiserver"]
    granted: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for where in itertools.product(rule["apiGroups"], rule["resources"]):
            granted.setdefault(where, set()).update(rule["verbs"])
    assert granted.keys() == wanted
    written = {IMPORTS.plural, "services", "endpointslices"} if imports else set()
    for resource, verbs in granted.items():
        if resource in statuses:
            assert verbs == {"patch"}
            continue
        writes = {"get", "create", "delete"} if resource[1] == RECORDS.plural else set()
        writes |= {"create", "patch", "delete"} if resource[1] in written else set()
        assert verbs == {"list", "watch"} | writes


def test_agents_have_no_permissions() -> None:
    for (kind, _), each in objects("least").items():
        if kind.endswith("Binding"):
            assert [subject["name"] for subject in each["subjects"]] == ["clustermesh-apiserver"]
    spec = objects("least")["DaemonSet", "clustermesh-agent"]["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False


# --- values ------------------------------------------------------------------------------------


def faults(schema: Manifest, value: Any, path: str = "") -> Iterator[str]:
    """What of a value the schema refuses: as much of JSON Schema as the chart's uses."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    types = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "boolean": bool,
    }
    kind = types[schema["type"]]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        yield f"{path}: expected {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: expected one of {schema['enum']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{path}: expected {schema['pattern']}"
    if isinstance(value, str | list) and len(value) < schema.get("minLength", 0):
        yield f"{path}: too short"
    if kind is int and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: out of range"
    for index, item in enumerate(value if kind is list else ()):
        yield from faults(schema["items"], item, f"{path}[{index}]")
    yield from _members(schema, value if kind is dict else {}, path)


def _members(schema: Manifest, value: Manifest, path: str) -> Iterator[str]:
    for name in schema.get("required", ()) if isinstance(value, dict) else ():
        if name not in value:
            yield f"{path}.{name}: required"
    known = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for name, member in value.items():
        if name in known:
            yield from faults(known[name], member, f"{path}.{name}")
        elif isinstance(others, dict):
            yield from faults(others, member, f"{path}.{name}")
        elif not others:
            yield f"{path}.{name}: unknown"


def test_the_schema_takes_the_defaults_and_every_case() -> None:
    assert list(faults(SCHEMA, VALUES)) == []
    for case in CASES.values():
        assert list(faults(SCHEMA, case)) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cluster": {"name": "Paris", "id": 1}}, ".cluster.name: expected"),
        ({"cluster": {"name": "paris", "id": 512}}, ".cluster.id: out of range"),
        ({"cluster": {"name": "paris"}}, ".cluster.id: required"),
        ({"cluster": {"name": "p", "id": 1}, "agnet": {}}, ".agnet: unknown"),
        ({"cluster": {"name": "p", "id": 1}, "agent": {"tableSize": 1000}}, ".agent.tableSize"),
        (
            {"cluster": {"name": "p", "id": 1}, "join": {"from": ["nope"]}},
            ".join.from[0]: expected",
        ),
        (
            {"cluster": {"name": "p", "id": 1}, "agent": {"etcd": {"ips": ["etcd.test"]}}},
            ".agent.etcd.ips[0]: expected",
        ),
        (
            {"cluster": {"name": "p", "id": 1}, "remotes": {"q": {"endpoints": ["http://q"]}}},
            ".remotes.q.endpoints[0]: expected",
        ),
    ],
)
def test_the_schema_refuses_what_would_not_work(values: Manifest, said: str) -> None:
    assert any(fault.startswith(said) for fault in faults(SCHEMA, values))


def test_every_default_is_described_and_every_description_has_a_default() -> None:
    def same(schema: Manifest, value: Manifest, path: str) -> None:
        if "$ref" in schema:
            schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
        if "properties" in schema:
            assert set(schema["properties"]) - {"global"} == set(value), path
            for name, member in value.items():
                if isinstance(member, dict):
                    same(schema["properties"][name], member, f"{path}.{name}")

    same(SCHEMA, VALUES, "")
