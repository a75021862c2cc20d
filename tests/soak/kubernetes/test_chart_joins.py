"""Two clusters that know nothing of each other: one lets the other join, both by their contexts."""

import json
from collections.abc import Iterator

import pytest

from tests.e2e import checks
from tests.soak.kubernetes.installed import CLUSTERS, MARKS, Chart, install, made, ready

pytestmark = MARKS


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chart]:
    """Clusters that let others join, and know of none."""
    with made(tmp_path_factory.mktemp("strangers")) as found:
        install(found, "--set=join.enabled=true")
        yield found


def test_a_cluster_joins_by_its_context_with_a_token(strangers: Chart) -> None:
    host, guest = CLUSTERS
    ready(strangers)
    invited = json.loads(strangers.at(host, "token", "create", guest, "-o", "json"))
    joined = json.loads(strangers.at(guest, "join", invited["token"], "-o", "json"))
    assert all(it["done"] for it in joined["nodes"]), joined
    (token,) = json.loads(strangers.at(host, "token", "list", "-o", "json"))
    assert token["state"] == "done"
    strangers.meshctl("status", "--wait", "--timeout", "120")
    checks.pods_reach_pods(strangers.world)
    print(strangers.at(host, "ca", "revoke", host, guest))
    users = strangers.clusters[0].get("api/v1", "configmaps", "clustermesh-remote-users")
    assert f"remote-{guest}" not in users["data"]["users.yaml"]
