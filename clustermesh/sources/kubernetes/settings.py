"""What can be set about following a Kubernetes API server; every wait is here."""

import secrets
import socket
from pathlib import Path

import msgspec
from msgspec import field

from clustermesh.sources.kubernetes.lease import LeaseSettings
from clustermesh.sources.kubernetes.resources import Flavour

POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _holder() -> str:
    """The pod's name, and something that its next life does not share."""
    return f"{socket.gethostname()}_{secrets.token_hex(4)}"


class KubernetesSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    kubeconfig: Path | None = None
    """None: the pod's service account, or where there is none, what kubectl would use."""
    context: str = ""
    """Empty: the current one."""
    flavour: Flavour | None = None
    """None: find out."""

    namespace: str = ""
    """Of the lease; empty: the pod's own, or kube-system."""
    holder: str = field(default_factory=_holder)
    """Name under which this process holds the lease."""
    lease_duration: float = 15.0
    """A replica that was silent for so long has lost it."""

    page_limit: int = 500
    """Objects asked for at once; fewer when they are large."""
    page_bytes: int = 8 * 1024 * 1024
    """Pages larger than this are followed by smaller ones."""
    line_bytes: int = 64 * 1024 * 1024
    """A single event larger than this is taken for a broken stream."""
    watch_list: bool = True
    """Ask for the initial state as a stream, where the server offers it."""

    connect_timeout: float = 10.0
    answer_timeout: float = 60.0
    """Silence within an answer that is not a watch, or before the first initial event."""
    watch_lifetime: float = 120.0
    """The server is asked to end a watch after one to two times this. A real one may fall silent
    to a reader that was slow, without ending the watch: the next one tells the rest."""
    login_timeout: float = 30.0
    """For kubeconfig's plugins."""
    token_reread: float = 60.0
    """Token files change in place."""

    first_wait: float = 0.5
    longest_wait: float = 30.0
    refused_wait: float = 30.0
    """Before asking again for what is forbidden or not served."""

    def lease(self, name: str = "clustermesh-identities") -> LeaseSettings:
        """Of the replica that numbers identities, or does something else that one has to do."""
        return LeaseSettings(
            name=name,
            namespace=self.namespace or own_namespace(),
            holder=self.holder,
            duration=self.lease_duration,
            renew=self.lease_duration / 4,
        )


def own_namespace() -> str:
    """The pod's; kube-system outside of one."""
    try:
        return POD_NAMESPACE.read_text().strip() or "kube-system"
    except OSError:
        return "kube-system"
