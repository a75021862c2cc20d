"""The place of a cluster: on this machine, or in its Kubernetes."""

from pathlib import Path

from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshfile import Cluster
from clustermesh.places.place import Place, on_files


def place_of(cluster: Cluster) -> Place:
    """What connecting has to know of a cluster's place. Raises ``NoAnswer``."""
    if cluster.context:
        from clustermesh.meshctl.kube import places  # its packages are needed for contexts only

        return places.place_of(cluster)
    return on_files(cluster)


def known(member: Cluster) -> Cluster:
    """The cluster, when its own keys are within reach. Raises ``MeshctlError``."""
    if not member.context and Path() in (member.ca_key, member.config_dir, member.users_file):
        raise MeshctlError(
            f"{member.name} has no ca-key, config-dir and users-file in the mesh file, and no"
            " context of a kubeconfig: its keys are out of reach here.",
            Exit.USAGE,
        )
    return member
