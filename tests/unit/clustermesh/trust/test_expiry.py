"""Certificates in use: read from the files, counted in days, warned about in time."""

import datetime
from pathlib import Path

import pytest
import yaml

from clustermesh.apiserver.metrics import ends
from clustermesh.pki import Authority, write_private
from clustermesh.trust import expiry
from clustermesh.trust.expiry import DAY, InUse

ISSUED = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
NOW = ISSUED.timestamp()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("cluster-b", now=ISSUED)


@pytest.fixture
def used(tmp_path: Path, authority: Authority) -> InUse:
    """Cluster a, which follows b with a certificate of b's."""
    remotes = tmp_path / "remotes"
    remotes.mkdir()
    write_private(remotes / "b-ca.crt", authority.certificate)
    authority.client("remote-cluster-a", now=ISSUED).write(remotes / "b.crt", remotes / "b.key")
    document = {
        "endpoints": ["https://b.mesh.cilium.io:2379"],
        "trusted-ca-file": str(remotes / "b-ca.crt"),
        "cert-file": str(remotes / "b.crt"),
        "key-file": str(remotes / "b.key"),
    }
    (remotes / "cluster-b").write_text(yaml.safe_dump(document))
    (tmp_path / "etcd.yaml").write_text("endpoints: [http://127.0.0.1:2379]")
    return InUse(own="cluster-a", client=tmp_path / "etcd.yaml", remotes=remotes)


def test_each_use_is_named_with_subject_and_end(used: InUse):
    leaf, ca = used.read()
    assert (leaf.what, leaf.subject) == ("client of cluster-b", "CN=remote-cluster-a")
    assert (ca.what, ca.authority) == ("CA of cluster-b", True)
    assert expiry.days_left(leaf, NOW) == 365
    assert expiry.days_left(ca, NOW) == 3650


def test_thirty_days_ahead_is_soon_enough(used: InUse):
    assert expiry.warnings(used.read(), NOW + (365 - 30) * DAY) == []
    (said,) = expiry.warnings(used.read(), NOW + (365 - 29) * DAY)
    assert "client of cluster-b (CN=remote-cluster-a) ends in 29 days" in said
    assert "meshctl" in said
    (said,) = expiry.warnings(used.read(), NOW + 367 * DAY)
    assert "has expired 2 days ago" in said
    (said,) = expiry.warnings(used.read(), NOW + 365 * DAY + 60)
    assert "has expired less than a day ago" in said


def test_an_authority_that_ends_is_told_with_its_own_way_out(used: InUse):
    said = expiry.warnings(used.read(), NOW + 3640 * DAY)
    assert "meshctl ca rotate" in said[-1]


def test_a_replaced_file_is_read_again_and_a_broken_one_left_out(
    used: InUse, tmp_path: Path, authority: Authority
):
    before, _ = used.read()
    later = ISSUED + datetime.timedelta(days=100)
    remotes = tmp_path / "remotes"
    authority.client("remote-cluster-a", now=later).write(remotes / "b.crt", remotes / "b.key")
    after, _ = used.read()
    assert after.not_after == before.not_after + 100 * DAY
    write_private(remotes / "b.crt", b"nothing")
    assert [one.what for one in used.read()] == ["CA of cluster-b"]
    (remotes / "cluster-b").unlink()
    assert used.read() == ()


def test_a_metric_tells_the_end_of_each(used: InUse):
    (leaf, ca) = ends(used.read(), prefix="x_").samples
    assert leaf.name == "x_certificate_not_after_timestamp_seconds"
    assert leaf.labels["use"] == "client of cluster-b"
    assert leaf.value == NOW + 365 * DAY
    assert ca.value == NOW + 3650 * DAY
