"""What the kernel counted, as metrics: verdicts, runs of programs, events nobody was told of."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from bpf.counters import LINES, REASONS, Direction
from bpf.errors import BpfError
from bpf.layout import MetricsKey
from bpf.layout_events import MonitorValue
from bpf.syscalls import ProgramInfo

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

PREFIX: Final = "clustermesh_agent_datapath_"


class Counters(Protocol):
    """See ``bpf.maps.Counters``."""

    def read(self) -> Mapping[bytes, tuple[int, int]]:
        """Key to how often, and how many bytes."""
        ...


class Kernel(Protocol):
    """What is asked of ``bpf.datapath.Datapath``."""

    def programs(self) -> Iterable[ProgramInfo]:
        """Every program, with its runs while the kernel counts them."""
        ...

    def monitor_state(self) -> MonitorValue:
        """What listeners missed."""
        ...


def families(kernel: Kernel, counters: Counters) -> "Iterator[Metric]":
    """Read when somebody scrapes. What cannot be read is left out."""
    with suppress(BpfError, OSError):
        yield from _verdicts(counters.read())
    with suppress(BpfError, OSError):
        yield from _programs(kernel.programs())
    with suppress(BpfError, OSError):
        yield from _missed(kernel.monitor_state())


def _verdicts(found: Mapping[bytes, tuple[int, int]]) -> "Iterator[Metric]":
    from prometheus_client.metrics_core import CounterMetricFamily

    labels = ["reason", "code", "direction", "case"]
    packets = CounterMetricFamily(
        PREFIX + "verdicts", "Packets and connections by what became of them", labels=labels
    )
    size = CounterMetricFamily(PREFIX + "bytes", "Bytes of those packets", labels=labels)
    for raw, (count, number) in sorted(found.items()):
        key = MetricsKey.unpack(raw)
        values = _words(key)
        packets.add_metric(values, count)
        if number:
            size.add_metric(values, number)
    yield from (packets, size)


def _words(key: MetricsKey) -> list[str]:
    """Labels; a number where a later release counts what this one has no word for."""
    reasons = {int(reason): words for reason, words in REASONS.items()}
    lines = {int(line): words for line, words in LINES.items()}
    directions = {int(it): it.name.lower() for it in Direction}
    return [
        reasons.get(key.reason, str(key.reason)),
        str(key.reason),
        directions.get(key.direction, str(key.direction)),
        lines.get(key.line, str(key.line)),
    ]


def _programs(found: Iterable[ProgramInfo]) -> "Iterator[Metric]":
    from prometheus_client.metrics_core import CounterMetricFamily

    runs = CounterMetricFamily(
        PREFIX + "program_runs",
        "Runs of a program while kernel.bpf_stats_enabled is on",
        labels=["program"],
    )
    seconds = CounterMetricFamily(
        PREFIX + "program_run_seconds", "Time that those runs took", labels=["program"]
    )
    for info in found:
        runs.add_metric([info.name], info.runs)
        seconds.add_metric([info.name], info.run_seconds)
    yield from (runs, seconds)


def _missed(state: MonitorValue) -> "Iterator[Metric]":
    from prometheus_client.metrics_core import CounterMetricFamily

    missed = CounterMetricFamily(
        PREFIX + "events_missed", "Events that no listener was told of", labels=["why"]
    )
    missed.add_metric(["suppressed by the limit"], state.suppressed)
    missed.add_metric(["no room in the ring"], state.lost)
    yield missed
