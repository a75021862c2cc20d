"""Who a remote cluster says it is, and whether this mesh can have it (contract kvstore 4)."""

from typing import Final, Protocol

from clustermesh import keys
from clustermesh.checks import BadFact
from clustermesh.model import ClusterConfig

MODES: Final = ("", "services-and-endpointslices", "endpointslices-only")


class Me(Protocol):
    """The own cluster: its name and id, and how many clusters its mesh may have."""

    @property
    def cluster(self) -> str: ...

    @property
    def cluster_id(self) -> int: ...

    @property
    def max_clusters(self) -> int: ...


class Refused(ValueError):
    """The cluster cannot be followed; the text is a full sentence and says what to change."""


def judge(cluster: str, value: bytes, me: Me) -> ClusterConfig:
    """The cluster-config that ``value`` holds, when it fits this mesh; raises ``Refused``."""
    where = f"cluster-config of {cluster}"
    try:
        config = keys.decode_config(value)
    except BadFact as error:
        raise Refused(f"{where}: {error}; its control plane has to write it anew") from None
    _fits(where, config, me)
    return config


def judge_own(value: bytes, me: Me) -> ClusterConfig:
    """The own cluster's config; raises ``Refused`` when it is somebody else's."""
    where = f"cluster-config of {me.cluster}, this cluster"
    try:
        config = keys.decode_config(value)
    except BadFact as error:
        raise Refused(f"{where}: {error}; its apiserver has to write it anew") from None
    if config.id != me.cluster_id:
        raise Refused(
            f"{where}: its id is {config.id}, but this process was started with"
            f" --cluster-id {me.cluster_id}; give all of a cluster's processes the same id"
        )
    return config


def _fits(where: str, config: ClusterConfig, me: Me) -> None:
    theirs = config.capabilities.max_connected_clusters
    if not 1 <= config.id <= me.max_clusters:
        raise Refused(
            f"{where}: id: expected 1 to {me.max_clusters}, found {config.id};"
            " give it an id in this range"
        )
    if me.max_clusters != 255 and theirs != me.max_clusters:
        raise Refused(
            f"{where}: maxConnectedClusters: expected {me.max_clusters} as in this cluster,"
            f" found {theirs or 'none'}; every cluster of a mesh needs the same value"
        )
    mode = config.capabilities.endpoint_slices_export_mode
    if mode not in MODES:
        raise Refused(
            f"{where}: endpointSlicesExportMode: expected one of"
            f" {', '.join(map(repr, MODES))}, found {mode!r}"
        )


class Ids:
    """Which cluster holds which id; the own cluster holds its own for ever."""

    def __init__(self, me: Me) -> None:
        self._holders = {me.cluster_id: me.cluster}
        self._own = me.cluster

    def reserve(self, cluster: str, cluster_id: int) -> None:
        """Give the id to ``cluster``, who may hold it already; raises ``Refused``."""
        holder = self._holders.setdefault(cluster_id, cluster)
        if holder == cluster:
            return
        whose = "this cluster itself" if holder == self._own else f"{holder} in this mesh"
        raise Refused(
            f"cluster-config of {cluster}: id {cluster_id} is that of {whose};"
            " every cluster needs an id of its own"
        )

    def release(self, cluster: str) -> None:
        """Whatever id ``cluster`` holds is free again."""
        for number in [it for it, name in self._holders.items() if name == cluster]:
            del self._holders[number]
