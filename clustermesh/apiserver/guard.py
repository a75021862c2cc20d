"""Is this the etcd of this cluster? What is in it says so, and a wrong one is refused."""

from collections.abc import Mapping

from clustermesh.checks import BadFact
from clustermesh.keys import cluster_config, decode_config
from clustermesh.process import Fault
from kvstore.client import Reader

CONFIGS = cluster_config("")  # the prefix that all clusters' configurations share


async def check_ownership(
    store: Reader, *, cluster: str, cluster_id: int, replace_id: bool
) -> None:
    """Raise ``Fault`` when somebody else's cluster is published here, or our id is taken.

    Copies that kvstoremesh makes of remote clusters' configurations carry ``cached`` and are
    welcome; one without it was written by another cluster's apiserver.
    """
    configs: dict[str, bytes] = {}
    async for page in store.pages(CONFIGS):
        configs |= {entry.key.removeprefix(CONFIGS): entry.value for entry in page.entries}
    refuse(configs, cluster=cluster, cluster_id=cluster_id, replace_id=replace_id)


def refuse(
    configs: Mapping[str, bytes], *, cluster: str, cluster_id: int, replace_id: bool
) -> None:
    """As ``check_ownership``, from values by cluster name."""
    for name, value in sorted(configs.items()):
        try:
            config = decode_config(value)
        except BadFact:
            continue  # whoever wrote it, readers refuse it; ours will be written over
        if name == cluster:
            if config.id != cluster_id and not replace_id:
                raise Fault(
                    f"this etcd belongs to cluster {cluster} with id {config.id}, not "
                    f"{cluster_id}: correct --cluster-id or --etcd-config, or give the cluster "
                    f"its new id with --replace-cluster-id"
                )
        elif not config.capabilities.cached:
            raise Fault(
                f"this etcd belongs to cluster {name} (id {config.id}), not to {cluster}: correct "
                f"--etcd-config or --cluster-name, or empty the etcd if it was meant to be reused"
            )
        elif config.id == cluster_id:
            raise Fault(
                f"cluster id {cluster_id} is taken by the remote cluster {name}: every cluster of "
                f"a mesh needs an id of its own, so choose another --cluster-id"
            )
