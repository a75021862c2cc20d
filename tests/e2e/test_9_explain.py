"""Why a service goes where it goes, told by real nodes, and told when a map was tampered with."""

import json

import pytest

from tests.e2e.world import World, eventually

NAME = "default/rebel-base"
FROM = ("--from", "cluster-a/node-1")


def explained(mesh: World, *arguments: str, name: str = NAME, check: bool = True) -> dict:
    return mesh.json("explain", "service", name, *arguments, check=check)


def tcp(told: dict, node: str = "cluster-a/node-1") -> dict:
    """The service's one frontend for TCP over IPv4."""
    frontends = [it for it in told["nodes"][node]["frontends"] if it["frontend"].endswith("/TCP")]
    (story,) = [it for it in frontends if not it["frontend"].startswith("[")]
    return story


def pin(mesh: World, name: str) -> str:
    return str(next(p for p in mesh.pins("cluster-a", "node-1") if p.name == name))


def test_every_pod_is_a_candidate_with_its_share(mesh: World):
    story = tcp(explained(mesh))
    pods = [*mesh.pods("cluster-a", "rebel-base"), *mesh.pods("cluster-b", "rebel-base")]
    assert {c["address"] for c in story["candidates"]} == {f"{pod.ips[0]}:8080" for pod in pods}
    assert {c["share"] for c in story["candidates"]} == {1 / len(pods)}
    assert story["wrong"] == []


def test_the_numbers_are_those_that_bpftool_sees(mesh: World):
    story = tcp(explained(mesh, *FROM))
    frontends = mesh.json("bpf", "lb", "list", "--frontends", "--node", "cluster-a/node-1")
    (master,) = frontends[f"{story['frontend']} (0)"]
    assert f"({story['held']['id']})" in master
    assert f" {story['held']['count']}[0]" in master
    ids = {
        int(entry["key"][0], 16) for entry in mesh.bpftool("map", "dump", "pinned",
        pin(mesh, "cilium_lb4_backends_v3"))
    }  # fmt: skip
    assert {c["id"] for c in story["candidates"]} <= ids


def test_the_text_has_wishes_reasons_and_maps(mesh: World):
    text = mesh.meshctl("describe", "service", NAME, *FROM).stdout
    for words in (
        "what each cluster wants",
        "As cluster-a/node-1 has it",
        "global here, global and shared there: candidates",
        "it has a backend that can be used: goes there",
        "4 selected of 4 slots",
    ):
        assert words in text


def test_a_service_that_is_not_global_says_so(mesh: World):
    told = explained(mesh, *FROM, name="default/private-base")
    assert {c["cluster"] for c in tcp(told)["candidates"]} == {"cluster-a"}
    text = mesh.meshctl("explain", "service", "default/private-base", *FROM).stdout
    assert "not global here: never used" in text


def test_a_service_nobody_has_is_said_with_near_names(mesh: World):
    done = mesh.meshctl("explain", "service", "default/rebel-bas", check=False)
    assert done.returncode == 1
    assert "Did you mean" in done.stderr
    assert "default/rebel-base" in done.stderr


def test_a_dead_peer_is_named_as_the_last_word(mesh: World):
    mesh.lab("kill", "cluster-b/etcd")

    def doubtful() -> bool:
        text = mesh.meshctl("explain", "service", NAME, *FROM).stdout
        return "not connected: this is its last word" in text

    eventually("the dead peer's offer is its last word", doubtful)


def test_silent_agents_are_a_failure_of_their_own(mesh: World):
    mesh.lab("kill", "cluster-a/node-1/agent")
    done = mesh.meshctl("explain", "service", NAME, *FROM, check=False)
    assert done.returncode == 4
    assert "does not answer" in done.stderr


@pytest.mark.parametrize("map_name", ["cilium_lb4_backends_v3", "cilium_lb4_maglev"])
def test_a_map_that_was_tampered_with_is_told(mesh: World, map_name: str):
    story = tcp(explained(mesh, *FROM))
    number = story["candidates"][0]["id"]
    service_id = story["held"]["id"]
    key = number.to_bytes(4, "little")
    if map_name == "cilium_lb4_maglev":
        table = mesh.bpftool("map", "dump", "pinned", pin(mesh, map_name))
        others = [tuple(it["key"]) for it in table]
        key = service_id.to_bytes(2, "big")
        assert tuple(f"0x{byte:02x}" for byte in key) in others
    words = [f"0x{byte:02x}" for byte in key]
    mesh.bpftool("map", "delete", "pinned", pin(mesh, map_name), "key", "hex", *words)

    done = mesh.meshctl("explain", "service", NAME, *FROM, "-o", "json", check=False)
    assert done.returncode == 3, done.stdout
    said = " ".join(tcp(json.loads(done.stdout))["wrong"])
    assert (f"backend {number}" in said) or "table" in said

    mesh.lab("restart", "cluster-a/node-1/agent")
    mesh.lab("kill", "cluster-a/node-1/agent")
    mesh.healthy()
    assert tcp(explained(mesh, *FROM))["wrong"] == []
