"""Settings of the agent: what is refused, and in which words."""

import pytest

from agent.settings import Settings, listen
from clustermesh.settings import SettingsError, load

GOOD = [
    "--cluster-name=home",
    "--cluster-id=1",
    "--node-ip=192.0.2.1",
    "--etcd-config=/etc/own",
    "--clustermesh-config=/etc/remotes",
]


def loaded(*more: str) -> Settings:
    return load(Settings, [*GOOD, *more], program="clustermesh-agent", summary="", env={})


def test_few_flags_are_enough() -> None:
    settings = loaded()
    assert settings.max_connected_clusters == 255
    assert settings.node
    assert settings.cgroup_root is None


def test_times_and_paths_are_read() -> None:
    settings = loaded("--stale-after=10m", "--cgroup-root=/sys/fs/cgroup/x", "--state-dir=/s")
    assert settings.stale_after == 600
    assert str(settings.cgroup_root) == "/sys/fs/cgroup/x"


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--cluster-name=Home", "cluster-name"),
        ("--cluster-id=0", "cluster-id"),
        ("--cluster-id=300", "--cluster-id: 300 needs --max-connected-clusters=511"),
        (
            "--max-connected-clusters=256",
            "--max-connected-clusters: expected one of 255, 511, found '256'",
        ),
        ("--node-ip=here", "--node-ip: expected an address, found 'here'"),
        ("--api-listen=9000", "--api-listen: expected HOST:PORT"),
        ("--stamp-interval=200", "--stamp-interval: expected at most half of --stale-after"),
        ("--device=cm/vxlan", "device"),
    ],
)
def test_what_cannot_be_is_refused(flag: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        loaded(flag)


def test_places_to_listen() -> None:
    assert listen("[::1]:80") == ("::1", 80)
    assert listen("127.0.0.1:0") == ("127.0.0.1", 0)
    with pytest.raises(ValueError, match="HOST:PORT"):
        listen("127.0.0.1")
