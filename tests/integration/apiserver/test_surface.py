"""What it says over HTTP: probes, status, metrics under the names that dashboards know."""

import json
import re

from tests.support.apiserver import Apiserver, until
from tests.support.etcd import Etcd, free_port
from tests.support.vectors import APISERVER

NOT_OURS = {
    # A framework that this program does not have.
    "cilium_hive_status",
}
SERIES = re.compile(r"^(cilium_[a-z_]+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? ")


def series(text: str) -> dict[str, set[frozenset[str]]]:
    """Metric names to the sets of label names that they are seen with."""
    found: dict[str, set[frozenset[str]]] = {}
    for line in text.splitlines():
        if match := SERIES.match(line):
            labels = frozenset(re.findall(r'(\w+)="', match[2] or "")) - {"le"}
            found.setdefault(match[1], set()).add(labels)
    return found


async def test_probes_follow_the_etcd(apiserver: Apiserver, etcd: Etcd) -> None:
    etcd.kill()
    apiserver.start()
    await until(lambda: _is(apiserver, "GET /livez", (200, "ok")))
    assert await apiserver.ask("GET /readyz") == (500, "NotReady")
    etcd.start()
    await until(lambda: _is(apiserver, "GET /readyz", (200, "Ready")))


async def test_status_says_what_is_known_and_since_when(apiserver: Apiserver) -> None:
    await apiserver.ready()
    await until(lambda: _beats(apiserver))
    status = await apiserver.status()
    assert (status["cluster"], status["cluster-id"], status["ready"]) == ("paris", 7, True)
    assert status["kinds"]["Pod"]["synced"] is True
    assert status["kinds"]["Pod"]["objects"] == 2
    assert status["kinds"]["Pod"]["last-event"] > status["started"]
    assert status["keys"]["ip/v1"] == 2
    assert status["pending"] == 0
    assert status["trouble"] == []
    assert status["etcd"].startswith("etcd: connected to https://127.0.0.1:")


async def test_metrics_have_the_names_and_labels_of_the_real_one(apiserver: Apiserver) -> None:
    await apiserver.ready()
    await until(lambda: _beats(apiserver))
    _, text = await apiserver.ask("GET /metrics")
    ours = series(text)
    theirs = series((APISERVER / "metrics.txt").read_text())
    # 1.20 dropped the label that 1.17 has here (contract kvstore 8).
    theirs["cilium_clustermesh_apiserver_bootstrap_seconds"] = {frozenset()}
    for name in theirs.keys() - NOT_OURS:
        assert ours[name] == theirs[name], name
    for kind in ("nodes", "identities", "ip", "services", "serviceexports"):
        labels = f'{{action="write",scope="{kind}/v1",source_cluster="paris"}} 1.0'
        assert f"kvstore_initial_sync_completed{labels}" in text
    assert 'kvstore_sync_queue_size{scope="nodes/v1",source_cluster="paris"} 0.0' in text


async def test_the_level_of_the_log_changes_at_run_time(apiserver: Apiserver) -> None:
    await apiserver.ready("--log-level=error")
    assert await apiserver.ask("GET /v1/loglevel") == (200, '{"level":"error"}')
    assert (await apiserver.ask("PUT /v1/loglevel", '{"level":"info"}'))[0] == 200
    apiserver.peers("remote-rome")
    await until(lambda: _logged(apiserver, "etcd users follow the file"))
    lines = [json.loads(line) for line in apiserver.log.read_text().splitlines()]
    assert {line["level"] for line in lines} == {"info"}


async def test_tcp_on_request(apiserver: Apiserver) -> None:
    port = free_port()
    await apiserver.ready(f"--api-listen=127.0.0.1:{port}")
    code, text = apiserver.run(f"--api-listen=127.0.0.1:{port}", "--api-socket=/tmp/cm-x/none")
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in text


async def test_two_of_them_on_one_socket(apiserver: Apiserver) -> None:
    await apiserver.ready()
    code, text = apiserver.run()
    assert code == 1
    assert "another process answers on" in text


async def _is(apiserver: Apiserver, request: str, answer: tuple[int, str]) -> bool:
    return await apiserver.ask(request) == answer


async def _beats(apiserver: Apiserver) -> bool:
    return bool((await apiserver.status())["heartbeat"])


async def _logged(apiserver: Apiserver, event: str) -> bool:
    return event in apiserver.log.read_text()
