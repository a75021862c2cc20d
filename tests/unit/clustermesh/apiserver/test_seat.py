"""Which address a join token names."""

import pytest

from clustermesh.apiserver.seat import listened
from clustermesh.apiserver.settings import Settings
from clustermesh.http import Refused
from clustermesh.settings import load

NEEDED = ("--cluster-name=paris", "--cluster-id=7", "--etcd-config=/etc/etcd.yaml")


def settings(listen: str) -> Settings:
    argv = [*NEEDED, f"--join-listen={listen}"]
    return load(Settings, argv, program="x", summary="", env={})


def test_one_address_is_named():
    assert listened(settings("192.0.2.1:9882")) == ["192.0.2.1:9882"]


@pytest.mark.parametrize("listen", [":9882", "0.0.0.0:9882", "[::]:9882"])
def test_every_address_of_a_host_is_nobody_s_to_dial(listen: str):
    with pytest.raises(Refused, match="--join-address"):
        listened(settings(listen))
