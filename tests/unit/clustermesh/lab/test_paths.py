"""Names of what a lab makes."""

from pathlib import Path

from clustermesh.lab.paths import Paths
from clustermesh.lab.topology import LAB_NAME


def test_no_lab_owns_what_another_lab_made():
    one, other = Paths("lab", Path("/x")), Paths("lab2", Path("/x"))
    assert not other.node_netns("cluster-a", "node-1").startswith(one.prefix)


def test_a_name_with_a_dash_cannot_be_a_labs_name():
    assert LAB_NAME.fullmatch("lab2")
    assert not LAB_NAME.fullmatch("lab-2")
    assert not LAB_NAME.fullmatch("../lab")


def test_a_pod_named_like_a_node_has_a_namespace_of_its_own():
    paths = Paths("lab", Path("/x"))
    assert paths.pod_netns("a", "node-1") != paths.node_netns("a", "node-1")


def test_the_longest_names_fit_into_a_unix_socket_address():
    paths = Paths("l" * 12)
    assert len(str(paths.agent_socket("c" * 32, "node-200"))) < 108
