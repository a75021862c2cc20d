"""What the kernel counted has names, and what cannot be read costs nothing else."""

from collections.abc import Mapping, Sequence

import pytest

from agent.datapath_metrics import families
from bpf.errors import MapCallError
from bpf.layout import MetricsKey
from bpf.layout_events import MonitorValue
from bpf.syscalls import ProgramInfo


class Kernel:
    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    def programs(self) -> Sequence[ProgramInfo]:
        return [ProgramInfo(1, "", "cm_connect4", 0.25, 1000)]

    def monitor_state(self) -> MonitorValue:
        if self.fault is not None:
            raise self.fault
        return MonitorValue(lost=3, suppressed=4)


class Counters:
    def read(self) -> Mapping[bytes, tuple[int, int]]:
        return {
            MetricsKey(160, 2, 4, 3).pack(): (5, 300),
            MetricsKey(99, 1, 77, 3).pack(): (1, 0),
        }


def samples(kernel: Kernel) -> dict[tuple[str, ...], float]:
    """Last part of the name, and the labels' values, to the value."""
    return {
        (it.name.removeprefix("clustermesh_agent_datapath_"), *it.labels.values()): it.value
        for family in families(kernel, Counters())
        for it in family.samples
    }


def test_verdicts_have_words_and_numbers():
    found = samples(Kernel())
    told = ("no node has the destination", "160", "egress", "the sender was told")
    assert found["verdicts_total", *told] == 5
    assert found["bytes_total", *told] == 300
    assert found["verdicts_total", "99", "99", "ingress", "77"] == 1


def test_programs_have_runs_and_seconds():
    found = samples(Kernel())
    assert found["program_runs_total", "cm_connect4"] == 1000
    assert found["program_run_seconds_total", "cm_connect4"] == 0.25


def test_missed_events_have_a_reason():
    found = samples(Kernel())
    assert found["events_missed_total", "no room in the ring"] == 3
    assert found["events_missed_total", "suppressed by the limit"] == 4


@pytest.mark.parametrize("fault", [OSError(1, "no"), MapCallError("x", "reading", OSError(1, ""))])
def test_what_cannot_be_read_is_left_out(fault: Exception):
    found = samples(Kernel(fault))
    assert ("program_runs_total", "cm_connect4") in found
    assert not any(name[0].startswith("events") for name in found)
