"""Metrics of a kvstoremesh, read from its state when somebody scrapes (contract kvstore 8)."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from clustermesh.apiserver.metrics import Requests, ends, gauge, limiter
from clustermesh.keys import Kind
from clustermesh.status import CertificateStatus, RemoteStatus

PREFIX: Final = "cilium_kvstoremesh_"


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster's copy: what is known of it, what waits, and what came, by kind."""

    status: RemoteStatus
    read: Mapping[Kind, bool]
    whole: frozenset[Kind]
    keys: Mapping[Kind, int]
    queued: Mapping[str, int]
    events: Mapping[Kind, int]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a scrape tells."""

    cluster: str
    leads: bool
    copies: Sequence[Copied]
    requests: Requests
    errors: Counter[str]
    bootstrap_seconds: float
    certificates: Sequence[CertificateStatus] = ()


class State(Collector):
    """Turns a reading into metric families."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Nothing is read before the first scrape."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Every family, now."""
        reading = self._read()
        yield from _clusters(reading)
        yield from _sync(reading)
        yield from limiter(reading.requests, prefix=PREFIX)
        yield from _ours(reading)
        yield ends(reading.certificates, prefix=PREFIX)


def _clusters(reading: Reading) -> Iterable[Metric]:
    labels = ["source_cluster", "source_node_name"]
    clusters = gauge("remote_clusters", "Remote clusters", labels, prefix=PREFIX)
    clusters.add_metric([reading.cluster, ""], len(reading.copies))
    yield clusters
    each: tuple[tuple[str, str, Callable[[RemoteStatus], float]], ...] = (
        ("failures", "Failures of the connection", lambda it: it.num_failures),
        ("last_failure_ts", "When it failed last", lambda it: it.last_failure),
        ("readiness_status", "Whether it is copied in full", lambda it: float(it.ready)),
        ("cache_revocations", "How often services were let go", lambda it: it.cache_revocations),
    )
    for name, words, value in each:
        family = gauge(f"remote_cluster_{name}", words, [*labels, "target_cluster"], prefix=PREFIX)
        for copy in reading.copies:
            family.add_metric([reading.cluster, "", copy.status.name], value(copy.status))
        yield family
    master = gauge(
        "leader_election_master_status", "Whether this replica leads", ["name"], prefix=PREFIX
    )
    master.add_metric(["kvstoremesh"], float(reading.leads))
    yield master


def _sync(reading: Reading) -> Iterable[Metric]:
    labels = ["scope", "source_cluster"]
    queue = gauge("kvstore_sync_queue_size", "Keys that wait to be written", labels, prefix=PREFIX)
    done = gauge(
        "kvstore_initial_sync_completed",
        "Whether a first list is complete",
        [*labels, "action"],
        prefix=PREFIX,
    )
    for copy in reading.copies:
        name = copy.status.name
        for kind, read in copy.read.items():
            scope = f"{kind}/v1"
            queue.add_metric([scope, name], copy.queued.get(scope, 0))
            done.add_metric([scope, name, "read"], float(read))
            done.add_metric([scope, name, "write"], float(kind in copy.whole))
    yield queue
    yield done
    errors = CounterMetricFamily(
        PREFIX + "kvstore_sync_errors", "Writes that failed and were tried again", labels=labels
    )
    for scope, count in reading.errors.items():
        errors.add_metric([scope, reading.cluster], count)
    yield errors
    bootstrap = gauge(
        "bootstrap_seconds", "Seconds from start to the end of the first sync", [], prefix=PREFIX
    )
    bootstrap.add_metric([], reading.bootstrap_seconds)
    yield bootstrap


def _ours(reading: Reading) -> Iterable[Metric]:
    labels = ["scope", "target_cluster"]
    keys = gauge("cached_keys", "Keys that the cache should hold", labels, prefix=PREFIX)
    events = CounterMetricFamily(
        PREFIX + "copied_events", "Events of remote clusters", labels=labels
    )
    strangers = gauge(
        "refused_keys",
        "Keys and values of a cluster that were not copied",
        labels[1:],
        prefix=PREFIX,
    )
    for copy in reading.copies:
        for kind, count in copy.keys.items():
            keys.add_metric([f"{kind}/v1", copy.status.name], count)
        for kind, count in copy.events.items():
            events.add_metric([f"{kind}/v1", copy.status.name], count)
        strangers.add_metric([copy.status.name], copy.status.refused_values)
    yield from (keys, events, strangers)
