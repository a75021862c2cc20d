"""A real agent is asked whether its kernel's maps are what real etcds say."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bpf.kernel_maps import KernelMap
from bpf.layout import IpcacheKey, IpcacheValue
from tests.support.agent_process import (
    Place,
    _UnixConnection,
    agent,
    own_cluster,
    place,
    remote_cluster,
)

pytestmark = [pytest.mark.root, pytest.mark.etcd]

STRANGER = (IpcacheKey(bytes([10, 9, 9, 9]), 32).pack(), IpcacheValue(5).pack())


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as made:
        yield made


def post(node: Place, path: str) -> Any:
    connection = _UnixConnection(node.socket)
    try:
        connection.request("POST", path)
        answer = connection.getresponse()
        assert answer.status == http.client.OK, answer.read()
        return json.loads(answer.read())
    finally:
        connection.close()


def test_planted_errors_are_found_in_the_kernel_and_mended(node: Place) -> None:
    with node.etcd() as own, node.etcd() as paris:
        node.write(own, own_cluster({"cart": ["10.1.0.9"], "empty": []}))
        node.write(paris, remote_cluster("paris", 7, {"cart": ["10.7.0.9", "10.7.0.10"]}))
        node.configure("paris", paris)
        with agent(node, node.arguments(own)) as running:
            running.until(lambda: node.ask("/v1/audit")["differences"] == [])
            right = node.ask("/v1/audit")
            assert right["unaudited"] == []
            assert right["rounds"] == 1
            assert set(right["revisions"]) == {"home", "paris"}
            assert right["entries"]["cilium_lb4_services_v2"] == 5  # two masters, three slots

            maps = node.bpf / "clustermesh" / "maps"
            ipcache = KernelMap.pinned(maps / "cilium_ipcache")
            backends = KernelMap.pinned(maps / "cilium_lb4_backends_v3")
            try:
                ipcache.put_many([STRANGER])
                key, value = next(backends.items())
                backends.put_many([(key, value[:4] + b"\x00\x07" + value[6:])])
                found = node.ask("/v1/audit")
                kinds = {(it["map"], it["kind"]) for it in found["differences"]}
                assert ("cilium_ipcache", "extra") in kinds
                assert ("cilium_lb4_backends_v3", "wrong") in kinds
                assert "differ from the etcds" in str(node.ask("/v1/status")["trouble"])
                metrics = node.ask("/metrics")
                assert f"audit_differences {len(found['differences'])}.0" in metrics

                mended = post(node, "/v1/audit")
                assert mended["differences"] == []
                assert mended["mended"] == len(found["differences"])
                assert ipcache.get(STRANGER[0]) != STRANGER[1]
                assert backends.get(key) == value
            finally:
                ipcache.close()
                backends.close()
            assert node.ask("/v1/status")["trouble"] == []


def test_planted_routes_are_found_and_mended(node: Place) -> None:
    """With an agent that takes its time over events of the network."""
    table = ("table", "8472")
    with node.etcd() as own, node.etcd() as paris:
        node.write(own, own_cluster({"cart": ["10.1.0.9"]}))
        node.write(paris, remote_cluster("paris", 7, {"cart": ["10.7.0.9"]}))
        node.configure("paris", paris)
        with agent(node, node.arguments(own, "--network-settle", "300")) as running:
            running.until(lambda: node.ask("/v1/audit")["entries"].get("routes") == 2)
            running.until(lambda: node.ask("/v1/audit")["differences"] == [])
            node.run("ip", "route", "add", "10.9.0.0/16", "dev", "cm_vxlan", *table)
            node.run("ip", "route", "replace", "10.7.0.0/24", "dev", "eth0", *table)
            node.run("ip", "rule", "del", "priority", "472")
            found = {it["key"]: it["kind"] for it in node.ask("/v1/audit")["differences"]}
            assert found == {
                "10.9.0.0/16": "extra", "10.7.0.0/24": "wrong", "all IPv4 packets": "missing",
            }  # fmt: skip
            mended = post(node, "/v1/audit")
            assert (mended["mended"], mended["differences"]) == (3, [])
            assert "10.7.0.0/24 dev cm_vxlan" in node.run("ip", "route", "show", *table)
