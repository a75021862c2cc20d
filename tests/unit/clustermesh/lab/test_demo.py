"""How the demonstration puts things."""

from pathlib import Path

from clustermesh.lab import ask, demo
from clustermesh.lab.asking import Answers
from clustermesh.lab.paths import Paths

ANSWERS = Answers(
    pods={"cluster-b/x-1": 40, "cluster-a/x-1": 30, "cluster-a/x-2": 30},
    peers=("10.1.1.11",),
    failures=("TimeoutError: timed out",),
    seconds=1.0,
    ended=0.0,
)


def test_answers_are_counted_per_cluster():
    assert ANSWERS.clusters() == {"cluster-a": 60, "cluster-b": 40}


def test_labels_are_those_that_say_whose_identity_it_is():
    labels = (
        "k8s:app=client",
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default",
        "k8s:io.cilium.k8s.policy.cluster=cluster-a",
        "k8s:io.cilium.k8s.policy.serviceaccount=default",
    )
    assert demo._telling(labels) == ["k8s:app=client", "k8s:io.cilium.k8s.policy.cluster=cluster-a"]


def test_every_step_to_try_names_the_lab_when_it_has_another_name():
    usual, other = (demo.next_steps(Paths(name, Path("/x"))) for name in ("lab", "other"))
    assert "--name" not in usual
    lines = [line for line in other.splitlines() if "meshctl lab" in line]
    assert lines
    assert all("--name other" in line for line in lines)


def test_the_client_in_a_pod_understands_its_options():
    options = ask.options_from(["10.0.0.1", "80", "--udp", "--until", "a/x-1", "--for", "3"])
    assert (options.address, options.port, options.udp) == ("10.0.0.1", 80, True)
    assert (options.until, options.limit, options.count) == ("a/x-1", 3.0, 1)
