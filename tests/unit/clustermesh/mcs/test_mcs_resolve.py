"""The oldest export decides, whatever the order in which exports came."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustermesh.mcs.resolve import NO_CONFLICTS, Conflict, resolve
from clustermesh.model import AffinityConfig, ClientIP, ExportedPort, ServiceExport
from tests.support.mcs import export

HTTP = ExportedPort(name="http", protocol="TCP", port=80)
DNS = ExportedPort(name="dns", protocol="UDP", port=53)
OLD, NEW = "2026-01-01T00:00:00Z", "2026-06-01T00:00:00Z"


def test_one_export_is_taken_as_it_is() -> None:
    found = resolve([export("rome", labels={"a": "b"})])
    assert found.clusters == ("rome",)
    assert found.ports == (HTTP,)
    assert found.labels == {"a": "b"}
    assert found.conflict == Conflict()


@pytest.mark.parametrize(
    ("reason", "field", "old", "new"),
    [
        ("TypeConflict", "type", "Headless", "ClusterSetIP"),
        ("SessionAffinityConflict", "session_affinity", "ClientIP", "None"),
        (
            "SessionAffinityConfigConflict",
            "session_affinity_config",
            AffinityConfig(ClientIP(10)),
            AffinityConfig(ClientIP(20)),
        ),
        ("AnnotationsConflict", "annotations", {"a": "1"}, {"a": "2"}),
        ("LabelsConflict", "labels", {"a": "1"}, {}),
        ("InternalTrafficPolicyConflict", "internal_traffic_policy", "Local", None),
        ("TrafficDistributionConflict", "traffic_distribution", "PreferClose", None),
    ],
)
def test_the_oldest_wins_and_the_others_are_told(
    reason: str, field: str, old: object, new: object
) -> None:
    found = resolve([export("a", NEW, **{field: new}), export("b", OLD, **{field: old})])
    assert getattr(found, field) == old
    assert found.conflict.reason == reason
    assert "in b," in found.conflict.message
    assert ": a of 2 clusters disagree" in found.conflict.message


def test_no_policy_means_cluster_and_is_no_conflict() -> None:
    found = resolve([export("a", internal_traffic_policy=None), export("b")])
    assert found.conflict.reason == NO_CONFLICTS


def test_equally_old_exports_are_ordered_by_cluster() -> None:
    found = resolve([export("b", type="Headless"), export("a")])
    assert found.type == "ClusterSetIP"


def test_ports_are_united() -> None:
    found = resolve([export("a", OLD, ports=(HTTP,)), export("b", NEW, ports=(HTTP, DNS))])
    assert found.ports == (HTTP, DNS)
    assert found.conflict.reason == "PortConflict"


@pytest.mark.parametrize(
    "other",
    [
        ExportedPort(name="http", protocol="TCP", port=8080),
        ExportedPort(name="http", protocol="UDP", port=80),
        ExportedPort(name="web", protocol="TCP", port=80),
        ExportedPort(name="http", protocol="TCP", port=80, app_protocol="h2c"),
    ],
)
def test_of_two_ports_that_cannot_both_be_the_older_is_used(other: ExportedPort) -> None:
    found = resolve([export("b", NEW, ports=(other,)), export("a", OLD, ports=(HTTP,))])
    assert found.ports == (HTTP,)
    assert found.conflict.reason == "PortConflict"


def test_the_order_of_ports_is_no_conflict() -> None:
    found = resolve([export("a", OLD, ports=(DNS, HTTP)), export("b", NEW, ports=(HTTP, DNS))])
    assert found.conflict == Conflict()


@pytest.mark.parametrize(
    ("families", "common", "reason"),
    [
        ([("IPv4", "IPv6"), ("IPv6", "IPv4")], ("IPv4", "IPv6"), NO_CONFLICTS),
        ([("IPv4", "IPv6"), ("IPv6",)], ("IPv6",), NO_CONFLICTS),
        ([("IPv4",), ("IPv6",)], ("IPv4",), "IPFamilyConflict"),
        ([(), ("IPv6",)], ("IPv6",), NO_CONFLICTS),
        ([(), ()], (), NO_CONFLICTS),
    ],
)
def test_families_are_what_all_have(
    families: list[tuple[str, ...]], common: tuple[str, ...], reason: str
) -> None:
    exports = [export(name, ip_families=each) for name, each in zip("abc", families, strict=False)]
    found = resolve(exports)
    assert found.ip_families == common
    assert found.conflict.reason == reason


ports = st.builds(
    ExportedPort,
    name=st.sampled_from(["", "http", "dns"]),
    protocol=st.sampled_from(["TCP", "UDP"]),
    port=st.integers(1, 3),
)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 2)).map(  # noqa: DTZ001  # UTC added
    lambda at: at.replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
)
exports = st.lists(
    st.builds(
        export,
        st.sampled_from("abcde"),
        moments,
        type=st.sampled_from(["ClusterSetIP", "Headless"]),
        ports=st.lists(ports, max_size=3).map(tuple),
        ip_families=st.sampled_from([(), ("IPv4",), ("IPv6",), ("IPv4", "IPv6")]),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda each: each.cluster,
)


@given(exports, st.randoms())
def test_order_of_arrival_decides_nothing(found: list[ServiceExport], random) -> None:
    before = resolve(found)
    random.shuffle(found)
    assert resolve(found) == before


@given(exports)
def test_what_comes_out_is_a_service_that_can_exist(found: list[ServiceExport]) -> None:
    resolved = resolve(found)
    assert len({port.name for port in resolved.ports}) == len(resolved.ports)
    assert len({(port.protocol, port.port) for port in resolved.ports}) == len(resolved.ports)
    assert (resolved.conflict.reason == NO_CONFLICTS) == (not resolved.conflict.message)
    if any(each.ip_families for each in found):
        assert resolved.ip_families
    first = min(found, key=lambda each: (each.export_creation_timestamp, each.cluster))
    assert resolved.type == first.type


@given(exports, st.sampled_from("vwxyz"))
def test_a_younger_export_changes_only_what_is_united(
    found: list[ServiceExport], name: str
) -> None:
    younger = export(name, "2030-01-01T00:00:00Z", type="Headless", session_affinity="ClientIP")
    before, after = resolve(found), resolve([*found, younger])
    assert (after.type, after.session_affinity) == (before.type, before.session_affinity)
    assert after.ports[: len(before.ports)] == before.ports
