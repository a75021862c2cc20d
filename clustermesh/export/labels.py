"""Labels as identities: their text, and which of a pod's labels count (contract kvstore 2.4)."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from clustermesh.model import CLUSTER_LABEL

NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
SERVICE_ACCOUNT_LABEL = "io.cilium.k8s.policy.serviceaccount"
OWNED = "io.cilium.k8s"
"""Labels that only the control plane may give; a pod's own are passed over."""

# Cilium's default filter: patterns match from the start of the key. A label counts unless it
# matches an exclusion, or if it matches an inclusion over more characters than the shortest
# matching exclusion.
INCLUDED = tuple(
    re.compile(re.escape(prefix))
    for prefix in (
        NAMESPACE_LABEL,
        NAMESPACE_LABELS.rstrip("."),
        "app.kubernetes.io",
        CLUSTER_LABEL,
    )
)
EXCLUDED = tuple(
    re.compile(pattern)
    for pattern in (
        r"io\.kubernetes",
        r"kubernetes\.io",
        r"statefulset\.kubernetes\.io/pod-name",
        r"apps\.kubernetes\.io/pod-index",
        r"batch\.kubernetes\.io/job-completion-index",
        r"batch\.kubernetes\.io/controller-uid",
        r".*beta\.kubernetes\.io",
        r"k8s\.io",
        r"pod-template-generation",
        r"pod-template-hash",
        r"controller-revision-hash",
        r"controller-uid",
        r"annotation.*",
        r"etcd_node",
    )
)


def text(labels: Iterable[tuple[str, str, str]]) -> str:
    """The value of an identity key from (source, key, value): sorted by key, source ignored.

    Two labels with one key are a tie that the real program leaves open; here the source decides.
    """
    ordered = sorted(labels, key=lambda label: (label[1].encode(), label[0]))
    return "".join(f"{source}:{key}={value};" for source, key, value in ordered)


def of_security_labels(labels: Mapping[str, str]) -> str:
    """The value for a CiliumIdentity's ``security-labels``; empty when it has none."""
    return text(_parts(label, value) for label, value in labels.items())


def _parts(label: str, value: str) -> tuple[str, str, str]:
    """Source, key and value; a reserved label without a key is named by its value."""
    source, key = split(label)
    return (source, value, "") if source == "reserved" and not key else (source, key, value)


def split(label: str) -> tuple[str, str]:
    """Source and key of ``k8s:app``; a label without a source has the source ``unspec``."""
    if label.startswith("$"):
        return "reserved", label[1:]
    source, colon, key = label.partition(":")
    if colon:
        return source or "unspec", key
    if label.startswith("reserved."):
        return "reserved", label.removeprefix("reserved.")
    return "unspec", label


def of_pod(
    labels: Mapping[str, str],
    namespace_labels: Mapping[str, str],
    *,
    namespace: str,
    service_account: str,
    cluster: str,
) -> str:
    """The identity text of a pod in flavour core, as a Cilium agent would derive it."""
    found = {key: value for key, value in labels.items() if not key.startswith(OWNED)}
    found |= {NAMESPACE_LABELS + key: value for key, value in namespace_labels.items()}
    found[NAMESPACE_LABEL] = namespace
    found[CLUSTER_LABEL] = cluster
    if service_account:
        found[SERVICE_ACCOUNT_LABEL] = service_account
    return text(("k8s", key, value) for key, value in found.items() if counts(key))


@lru_cache(maxsize=8192)
def counts(key: str) -> bool:
    """Whether a label is part of the identity under the default filter."""
    excluded = [match.end() for pattern in EXCLUDED if (match := pattern.match(key))]
    included = [match.end() for pattern in INCLUDED if (match := pattern.match(key))]
    return not excluded or max(included, default=0) > min(excluded)
