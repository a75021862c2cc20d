"""Metrics of the agent, read from its state when somebody scrapes (contract kvstore 8)."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, cast

from clustermesh.status import AgentStatus, RemoteStatus

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

PREFIX: Final = "clustermesh_agent_"

# name, help, value: the last parts of these names are those that existing dashboards know
REMOTE: Final[tuple[tuple[str, str, Callable[[RemoteStatus], float]], ...]] = (
    ("readiness_status", "Whether the cluster is ready", lambda it: float(it.ready)),
    ("failures", "Failures since the start", lambda it: it.num_failures),
    ("last_failure_ts", "When it last failed, Unix seconds", lambda it: it.last_failure),
    ("nodes", "Nodes of the cluster", lambda it: it.num_nodes),
    ("services", "Services the cluster shares", lambda it: it.num_shared_services),
    ("endpoints", "Addresses of the cluster", lambda it: it.num_endpoints),
    ("identities", "Identities of the cluster", lambda it: it.num_identities),
    ("refused_values", "Values that were refused", lambda it: it.refused_values),
    ("cache_revocations", "How often services were let go", lambda it: it.cache_revocations),
    ("held", "Whether deletions are held", lambda it: float(bool(it.held))),
    ("unconfirmed", "Whether facts are from before the start", lambda it: float(it.unconfirmed)),
)

MEASURED: Final[tuple[tuple[str, str, Callable[[RemoteStatus], float | None]], ...]] = (
    ("rtt_seconds", "To a node and back, through the overlay", lambda it: it.rtt),
    ("loss_ratio", "Probes through the overlay without an answer", lambda it: it.loss),
    ("etcd_rtt_seconds", "A question to its etcd and the answer", lambda it: it.round_trip),
    (
        "propagation_age_seconds",
        "Since the newest propagation probe",
        lambda it: it.propagation.age if it.propagation else None,
    ),
)


class Registry:
    """What ``prometheus_client.generate_latest`` asks; the library is imported by the first scrape.

    A scrape reads the status once; nothing is kept up to date in between.
    """

    def __init__(
        self, read: Callable[[], AgentStatus], more: "Callable[[], Iterable[Metric]]"
    ) -> None:
        self._read = read
        self._more = more

    def collect(self) -> "Iterable[Metric]":
        """Every family, now."""
        from prometheus_client import GCCollector, PlatformCollector, ProcessCollector

        status = self._read()
        yield from _remotes(status)
        yield from _node(status)
        yield from self._more()
        for collector in (
            ProcessCollector(registry=None),
            PlatformCollector(registry=None),
            GCCollector(registry=cast("CollectorRegistry", _Nowhere())),
        ):
            yield from collector.collect()


class _Nowhere:
    """GCCollector insists on registering itself."""

    def register(self, _: object) -> None:
        """Not kept."""


def registry(
    read: Callable[[], AgentStatus], more: "Callable[[], Iterable[Metric]]" = tuple
) -> "CollectorRegistry":
    """The registry for ``clustermesh.http.Surface``; ``more`` gives further families."""
    return cast("CollectorRegistry", Registry(read, more))  # only its collect() is ever used


def _remotes(status: AgentStatus) -> "Iterator[Metric]":
    from prometheus_client.metrics_core import GaugeMetricFamily

    place = [status.cluster, status.node]
    labels = ["source_cluster", "source_node_name"]
    total = GaugeMetricFamily(PREFIX + "remote_clusters", "Remote clusters", labels=labels)
    total.add_metric(place, len(status.remotes))
    yield total
    for name, text, value in REMOTE:
        family = GaugeMetricFamily(
            f"{PREFIX}remote_cluster_{name}", text, labels=[*labels, "target_cluster"]
        )
        for remote in status.remotes:
            family.add_metric([*place, remote.name], value(remote))
        yield family
    yield from _measured(status, place, [*labels, "target_cluster"])


def _measured(status: AgentStatus, place: list[str], labels: list[str]) -> "Iterator[Metric]":
    """What is not known yet has no sample. The own cluster's propagation is told as well."""
    from prometheus_client.metrics_core import GaugeMetricFamily

    for name, text, value in MEASURED:
        family = GaugeMetricFamily(f"{PREFIX}remote_cluster_{name}", text, labels=labels)
        for remote in status.remotes:
            if (found := value(remote)) is not None:
                family.add_metric([*place, remote.name], found)
        yield family
    seconds = GaugeMetricFamily(
        PREFIX + "propagation_seconds",
        "From an apiserver into this node's maps, of the newest probes",
        labels=[*labels, "quantile"],
    )
    for remote in (status.own, *status.remotes):
        told = remote.propagation
        for quantile, value_ in (("0.5", told.p50), ("0.99", told.p99)) if told else ():
            if value_ is not None:
                seconds.add_metric([*place, remote.name, quantile], value_)
    yield seconds


def _node(status: AgentStatus) -> "Iterator[Metric]":
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(PREFIX + name, text)
        family.add_metric([], value)
        return family

    yield gauge("ready", "Whether the agent is ready", float(status.ready))
    yield gauge("own_cluster_ready", "Whether own facts are complete", float(status.own.ready))
    yield gauge("services", "Services known", status.num_services)
    yield gauge("global_services", "Global services known", status.num_global_services)
    yield gauge("troubles", "Sentences of trouble in the status", len(status.trouble))
    yield gauge("refusals", "Objects that are refused at present", len(status.refusals))
    yield gauge("audit_differences", "Entries that differ from the etcds", status.differences)
    yield gauge("audit_timestamp_seconds", "When that was last looked at", status.audited)
    writes = CounterMetricFamily(PREFIX + "map_writes", "Entries written to maps or removed")
    writes.add_metric([], status.map_writes)
    yield writes
    entries = GaugeMetricFamily(PREFIX + "map_entries", "Entries in a map", labels=["map"])
    room = GaugeMetricFamily(PREFIX + "map_max_entries", "Room of a map", labels=["map"])
    pressure = GaugeMetricFamily(
        PREFIX + "map_pressure", "Share of a map's room that is taken", labels=["map"]
    )
    for name, count in status.maps.items():
        entries.add_metric([name], count.entries)
        room.add_metric([name], count.max_entries)
        pressure.add_metric([name], count.entries / max(count.max_entries, 1))
    yield from (entries, room, pressure)
    ends = GaugeMetricFamily(
        PREFIX + "certificate_not_after_timestamp_seconds",
        "When a certificate in use ends",
        labels=["use", "fingerprint"],
    )
    for one in status.certificates:
        ends.add_metric([one.what, one.fingerprint[:16]], one.not_after)
    yield ends
