"""What is heard of a cluster beside its facts: nobody waits for it."""

from collections.abc import Callable, Sequence

from clustermesh.model import ClusterConfig
from clustermesh.remotes.session import Follow

Listen = Callable[[str, ClusterConfig], Sequence[Follow]]
"""What to follow besides, of the cluster of this name that says this of itself."""


def silence(_: str, __: ClusterConfig) -> Sequence[Follow]:
    """Nothing."""
    return ()
