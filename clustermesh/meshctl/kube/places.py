"""Where connecting writes in a Kubernetes cluster: the Secrets that agents mount (contract 5.1)."""

from clustermesh.meshctl.kube.members import is_behind_kvstoremesh, is_cilium, lists_users
from clustermesh.meshfile import Cluster
from clustermesh.places import secrets
from clustermesh.places.connection import connection
from clustermesh.places.place import Place


def place_of(cluster: Cluster) -> Place:
    """Of Cilium nothing is written but these Secrets: its users are its own.

    Whose the users are is asked now: a cluster that was silent when the mesh was opened is known
    from the mesh file alone, which does not say. Raises ``NoAnswer``.
    """
    made, space = connection(cluster.context, cluster.kubeconfig), cluster.namespace
    agents = secrets.secret(made, space, secrets.FOR_AGENTS)
    cache = secrets.secret(made, space, secrets.FOR_KVSTOREMESH)
    behind = is_behind_kvstoremesh(made, space)
    users = secrets.users(made, space)
    shared = cluster.shared_user or not lists_users(made, space)
    return Place(
        remotes=cache if behind else agents,
        users=None if shared or cluster.cilium or is_cilium(made, space) else users,
        users_name=secrets.USERS_KEY,
        authority=lambda: secrets.authority(made, space),
        agents=agents if behind else None,
        agents_file=lambda: secrets.to_own_etcd(made, space),
        shared_user=shared,
    )
