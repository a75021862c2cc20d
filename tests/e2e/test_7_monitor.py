"""What packets meet is shown live and with names, on every node."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import pack
from threading import Thread
from typing import Any

from tests.e2e.world import MESHCTL, PYTHON, World, eventually
from tests.support.bpf_packets import ethernet, udp

Flow = dict[str, Any]

SEND = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.sendto(bytes.fromhex(sys.argv[2]), (sys.argv[1], 8472))
"""


@contextmanager
def monitor(mesh: World, *arguments: str) -> Iterator[list[Flow]]:
    """``meshctl monitor`` during the block: what it has printed so far."""
    mesh_file = str(mesh.paths.mesh)
    tool = subprocess.Popen(
        [*MESHCTL, "monitor", "--mesh", mesh_file, "-o", "json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen: list[Flow] = []
    output = tool.stdout
    assert output is not None
    reader = Thread(target=lambda: seen.extend(json.loads(line) for line in output))
    reader.start()
    try:
        yield seen
        assert tool.poll() is None, tool.communicate()[1]
    finally:
        tool.terminate()
        reader.join()
        output.close()
        assert tool.stderr is not None
        tool.stderr.close()
        tool.wait()


def shown(what: str, seen: list[Flow], cause: Callable[[], object], **wanted: object) -> Flow:
    """The first packet shown with these members, caused again and again until it is."""

    def found() -> Flow | None:
        cause()
        time.sleep(0.3)
        for flow in seen:
            if flow["kind"] == "flow" and all(flow.get(k) == v for k, v in wanted.items()):
                return flow
        return None

    flow: Flow = eventually(what, found)
    return flow


def test_a_packet_between_clusters_is_shown_on_both_nodes_with_names(mesh: World):
    client, server = mesh.pod("cluster-a", "client"), mesh.pod("cluster-b", "rebel-base", 2)
    filters = (
        "--type",
        "trace",
        "--from-cluster",
        "cluster-a",
        "--to-pod",
        f"default/{server.name}",
    )
    with monitor(mesh, *filters) as seen:

        def cause() -> None:
            mesh.ask(client, server.ips[0], 8080)

        sent = shown("the packet leaving", seen, cause, point="to-overlay")
        arrived = shown("the packet coming", seen, cause, point="from-overlay")
    assert sent["node"] == f"cluster-a/{client.node_name}"
    assert arrived["node"] == f"cluster-b/{server.node_name}"
    for flow in (sent, arrived):
        source, destination = flow["source"], flow["destination"]
        assert source["identity"] == mesh.identity_of(client)
        assert (source["cluster"], source["pod"]) == ("cluster-a", client.name)
        assert source["address"] == client.ips[0]
        assert (destination["cluster"], destination["pod"]) == ("cluster-b", server.name)
        assert destination["namespace"] == "default"
        assert "k8s:io.kubernetes.pod.namespace=default" in destination["labels"]
    assert {flow["source"]["cluster"] for flow in seen if flow["kind"] == "flow"} == {"cluster-a"}
    assert {flow["destination"]["pod"] for flow in seen if flow["kind"] == "flow"} == {server.name}


def test_a_forged_packet_is_shown_as_dropped_with_the_reason(mesh: World):
    victim, claimed = mesh.pod("cluster-a", "client"), mesh.pod("cluster-a", "rebel-base")
    underlay = mesh.manifest("cluster-a", "Node", victim.node_name)["status"]["addresses"]
    node = next(each["address"] for each in underlay if each["type"] == "InternalIP")
    inner = ethernet(udp(claimed.ips[0], victim.ips[0]))
    vxlan = pack("!II", 0x08000000, mesh.identity_of(claimed) << 8) + inner
    program = mesh.on_node("cluster-b", "node-1", *PYTHON, "-c", SEND, node, vxlan.hex())
    with monitor(mesh, "--type", "drop", "--node", f"cluster-a/{victim.node_name}") as seen:
        drop = shown(
            "the drop",
            seen,
            lambda: subprocess.run(program, check=True),
            reason="an identity of another cluster than the sender's",
        )
    assert (drop["type"], drop["direction"], drop["code"]) == ("drop", "ingress", 192)
    assert drop["source"]["address"] == claimed.ips[0]
    assert drop["destination"]["pod"] == victim.name


def test_a_silent_agent_is_named_and_the_others_go_on(mesh: World):
    mesh.lab("kill", "cluster-a/node-1/agent")
    done = subprocess.run(
        [*MESHCTL, "monitor", "--mesh", str(mesh.paths.mesh), "--node", "cluster-a/node-1"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 4
    assert "cluster-a/node-1" in done.stderr
    assert "no agent answers" in done.stderr


def test_a_filter_that_means_nothing_is_refused(mesh: World):
    done = mesh.meshctl("monitor", "--type", "drops", check=False)
    assert done.returncode == 2
    assert "type: expected drop or trace, found 'drops'" in done.stderr
