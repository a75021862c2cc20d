"""The place of a cluster: on this machine, or in its Kubernetes."""

from clustermesh.meshfile import Cluster
from clustermesh.places.place import Place, on_files


def place_of(cluster: Cluster) -> Place:
    """What connecting has to know of a cluster's place. Raises ``NoAnswer``."""
    if cluster.context:
        from clustermesh.meshctl.kube import places  # its packages are needed for contexts only

        return places.place_of(cluster)
    return on_files(cluster)
