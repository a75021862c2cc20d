"""What can be set about following a Kubernetes API server; every wait is here."""

from pathlib import Path

import msgspec

from clustermesh.sources.kubernetes.resources import Flavour


class KubernetesSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    kubeconfig: Path | None = None
    """None: the pod's service account, or where there is none, what kubectl would use."""
    context: str = ""
    """Empty: the current one."""
    flavour: Flavour | None = None
    """None: find out."""

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
    watch_lifetime: float = 300.0
    """The server is asked to end a watch after one to two times this."""
    login_timeout: float = 30.0
    """For kubeconfig's plugins."""
    token_reread: float = 60.0
    """Token files change in place."""

    first_wait: float = 0.5
    longest_wait: float = 30.0
    refused_wait: float = 30.0
    """Before asking again for what is forbidden or not served."""
