"""Metrics of the apiserver, read from its state when somebody scrapes (contract kvstore 8)."""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from clustermesh.apiserver.measured import PREFIX
from clustermesh.status import CertificateStatus, SourceKind
from clustermesh.version import VERSION


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a scrape tells. ``keys``, ``pending`` and ``errors`` are by scope (``nodes/v1``)."""

    cluster: str
    keys: Mapping[str, int]
    pending: Mapping[str, int]
    errors: Mapping[str, int]
    requests: "Requests"
    initial_sync: Mapping[str, bool]
    bootstrap_seconds: float
    kinds: Mapping[str, SourceKind]
    refused: int
    heartbeat: float
    certificates: Sequence[CertificateStatus] = ()


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """Requests to etcd: how many, how long, and how many there may be in a second.

    ``waited`` is what they waited for their turn: least, mean and most seconds.
    """

    succeeded: int
    failed: int
    in_flight: int
    seconds: float
    limit: float
    waited: tuple[float, float, float] = (0.0, 0.0, 0.0)


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
        yield from _peers_names(reading)
        yield from limiter(reading.requests)
        yield from _our_names(reading)


def _peers_names(reading: Reading) -> Iterable[Metric]:
    """The series that existing dashboards know."""
    labels = ["scope", "source_cluster"]
    queued = gauge(
        "kvstore_sync_queue_size", "Number of elements queued for synchronization", labels
    )
    for scope, count in reading.pending.items():
        queued.add_metric([scope, reading.cluster], count)
    yield queued
    errors = CounterMetricFamily(
        PREFIX + "kvstore_sync_errors", "Number of times synchronization failed", labels=labels
    )
    for scope, count in reading.errors.items():
        errors.add_metric([scope, reading.cluster], count)
    yield errors
    synced = gauge(
        "kvstore_initial_sync_completed",
        "Whether the initial synchronization is complete",
        [*labels, "action"],
    )
    for scope, done in reading.initial_sync.items():
        synced.add_metric([scope, reading.cluster, "write"], float(done))
    yield synced
    bootstrap = gauge("bootstrap_seconds", "Seconds from start to the end of the first sync", [])
    bootstrap.add_metric([], reading.bootstrap_seconds)
    yield bootstrap
    version = gauge("version", "Which release this is", ["version", "revision", "arch"])
    version.add_metric([VERSION, "", platform.machine()], 1)
    yield version


def limiter(requests: Requests, *, prefix: str = PREFIX) -> Iterable[Metric]:
    """The series of the rate limit."""
    done = requests.succeeded + requests.failed
    processed = CounterMetricFamily(
        prefix + "api_limiter_processed_requests",
        "Requests to etcd",
        labels=["api_call", "outcome", "return_code"],
    )
    processed.add_metric(["etcd", "success", "200"], requests.succeeded)
    processed.add_metric(["etcd", "fail", "500"], requests.failed)
    yield processed
    labels = ["api_call", "value"]
    duration = gauge(
        "api_limiter_processing_duration_seconds", "Mean time of a request", labels, prefix=prefix
    )
    duration.add_metric(["etcd", "mean"], requests.seconds / done if done else 0.0)
    yield duration
    waiting = gauge(
        "api_limiter_wait_duration_seconds", "Wait for a request's turn", labels, prefix=prefix
    )
    for value, seconds in zip(("min", "mean", "max"), requests.waited, strict=True):
        waiting.add_metric(["etcd", value], seconds)
    yield waiting
    flying = gauge(
        "api_limiter_requests_in_flight", "Requests without an answer yet", labels, prefix=prefix
    )
    flying.add_metric(["etcd", "in-flight"], requests.in_flight)
    flying.add_metric(["etcd", "limit"], requests.limit)
    yield flying
    rate = gauge(
        "api_limiter_rate_limit", "Requests per second that are allowed", labels, prefix=prefix
    )
    rate.add_metric(["etcd", "limit"], requests.limit)
    rate.add_metric(["etcd", "burst"], requests.limit)
    yield rate


def _our_names(reading: Reading) -> Iterable[Metric]:
    keys = gauge("published_keys", "Keys kept in etcd", ["scope"])
    for scope, count in reading.keys.items():
        keys.add_metric([scope], count)
    yield keys
    objects = gauge("source_objects", "Objects known of a kind", ["kind"])
    synced = gauge("source_synced", "Whether all objects of a kind have been read", ["kind"])
    heard = gauge("source_last_event_timestamp_seconds", "When a kind last changed", ["kind"])
    for kind, status in reading.kinds.items():
        objects.add_metric([kind], status.objects)
        synced.add_metric([kind], float(status.synced))
        heard.add_metric([kind], status.last_event)
    yield from (objects, synced, heard)
    refused = gauge("refused_objects", "Objects that are refused at present", [])
    refused.add_metric([], reading.refused)
    yield refused
    beat = gauge("heartbeat_timestamp_seconds", "When the last heartbeat was written", [])
    beat.add_metric([], reading.heartbeat)
    yield beat
    yield ends(reading.certificates)


def ends(certificates: Iterable[CertificateStatus], *, prefix: str = PREFIX) -> Metric:
    """The series of the certificates in use."""
    found = gauge(
        "certificate_not_after_timestamp_seconds",
        "When a certificate in use ends",
        ["use", "fingerprint"],
        prefix=prefix,
    )
    for one in certificates:
        found.add_metric([one.what, one.fingerprint[:16]], one.not_after)
    return found


def gauge(name: str, text: str, labels: list[str], *, prefix: str = PREFIX) -> GaugeMetricFamily:
    """An empty family; ``name`` without the prefix."""
    return GaugeMetricFamily(prefix + name, text, labels=labels)


def registry() -> CollectorRegistry:
    """A registry with what every Python process tells of itself."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left it bare
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    GCCollector(registry=made)
    return made
