"""The arguments that Cilium's chart gives its kvstoremesh start ours."""

from pathlib import Path

import pytest

from clustermesh.kvstoremesh.dialect import translated
from clustermesh.kvstoremesh.settings import SUMMARY, Settings
from clustermesh.settings import SettingsError, load

CHART = (
    *("--cluster-name=paris", "--cluster-id=7"),
    *("--kvstore-opt=etcd.config=/var/lib/cilium/etcd-config.yaml", "--kvstore-opt=etcd.qps=100"),
    *("--kvstore-opt=etcd.bootstrapQps=10000", "--kvstore-opt=etcd.maxInflight=10"),
    *("--clustermesh-config=/var/lib/cilium/clustermesh", "--enable-gops"),
    *("--controller-group-metrics=all", "--health-port=9881", "--prometheus-serve-addr=:9964"),
)


def read(*argv: str) -> Settings:
    return load(Settings, translated(argv)[0], program="kvstoremesh", summary=SUMMARY, env={})


def test_the_chart_s_arguments_are_understood() -> None:
    settings = read(*CHART)
    assert (settings.cluster_name, settings.cluster_id) == ("paris", 7)
    assert settings.etcd_config == Path("/var/lib/cilium/etcd-config.yaml")
    assert settings.etcd_qps == 100
    assert settings.listens == ("localhost:9889", ":9964", ":9881")
    assert translated(CHART)[1] == [
        "--kvstore-opt=etcd.bootstrapQps",
        "--kvstore-opt=etcd.maxInflight",
        "--enable-gops",
        "--controller-group-metrics",
    ]


def test_values_may_be_words_of_their_own_and_options_may_be_listed() -> None:
    settings = read(
        *("--cluster-name", "paris", "--cluster-id", "7", "--debug", "--kvstore", "etcd"),
        *("--kvstore-opt", "etcd.config=/c,etcd.qps=50", "--kvstore-lease-ttl", "2m30s"),
        *("--log-opt", "format=json", "--disable-drain-on-disconnection"),
    )
    assert (settings.etcd_config, settings.etcd_qps) == (Path("/c"), 50)
    assert (settings.lease_ttl, settings.log_level) == (150, "debug")
    assert not settings.drain_on_removal
    assert settings.listens == ("localhost:9889", ":9880")


def test_switches_can_be_off() -> None:
    settings = read(
        *("--cluster-name=paris", "--cluster-id=7", "--kvstore-opt=etcd.config=/c"),
        *("--debug=false", "--disable-drain-on-disconnection=false"),
    )
    assert settings.log_level == "info"
    assert settings.drain_on_removal


def test_our_own_arguments_are_left_alone() -> None:
    ours = ["--cluster-name", "paris", "--etcd-config", "/c", "--no-drain-on-removal", "--help"]
    assert translated(ours) == (ours, [])


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--kvstore=consul", "--kvstore: expected etcd, found 'consul'"),
        ("--kvstore-opt=etcd.address=http://x", "'etcd.address' is not known"),
    ],
)
def test_what_it_cannot_do_is_said(argument: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        translated([argument])
