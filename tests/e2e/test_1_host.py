"""A lab leaves the host alone: before, during, after, and after an interrupted try."""

from tests.e2e import host
from tests.e2e.host import NOTHING
from tests.e2e.world import World


def test_an_interrupted_up_leaves_nothing(before, interrupted):
    assert interrupted["said"]["code"] != "0"
    assert "Traceback" not in interrupted["said"]["output"]
    assert interrupted["host"] == before["host"]
    assert interrupted["remains"] == NOTHING


def test_a_running_lab_leaves_the_host_as_it_was(before, lab: World):
    assert host.picture() == before["host"]


def test_a_second_up_says_that_the_lab_is_up_and_harms_nothing(lab: World):
    again = lab.lab("up", check=False)
    assert again.returncode != 0
    assert "up" in again.stderr
    assert len(again.stderr.strip().splitlines()) <= 3
    lab.lab("status")


def test_one_cluster_cannot_be_connected_with_itself(lab: World):
    refused = lab.meshctl("connect", "cluster-a", "cluster-a", check=False)
    assert refused.returncode != 0
    assert "cluster-a" in refused.stderr


def test_an_unknown_cluster_is_refused_by_name(lab: World):
    refused = lab.meshctl("connect", "cluster-a", "cluster-bee", check=False)
    assert refused.returncode != 0
    assert "cluster-bee" in refused.stderr
    assert "cluster-b" in refused.stderr
