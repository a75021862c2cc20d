"""The lab's wires: a bridge as underlay, nodes on it, pods behind nodes, and a stand-in CNI.

The CNI is the plainest there is: every pod hangs on a point-to-point link with a /32 address and
a gateway that exists only as a neighbour entry; nodes of one cluster have routes to each other.
"""

from collections.abc import Iterable, Iterator

from clustermesh.lab import host
from clustermesh.lab.manifests import Pod
from clustermesh.lab.paths import Paths
from clustermesh.lab.topology import (
    POD_GATEWAY,
    POD_GATEWAY6,
    Addresses,
    Cluster,
    PodNetwork,
    Topology,
)

BRIDGE = "br0"
POD_TABLES = 100
TO_POD, FROM_POD = 512, 1536
"""Where a VPC CNI has its rules: behind ours, before the main table."""
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"

QUIET = {
    "ipv6/conf/all/accept_dad": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/router_solicitations": "0",
}
ROUTER = QUIET | {
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    "ipv4/conf/all/rp_filter": "1",
    "ipv4/conf/default/rp_filter": "1",
}


class Network:
    """Builds a topology's namespaces and links under a lab's names."""

    def __init__(self, paths: Paths, topology: Topology) -> None:
        self._paths = paths
        self._topology = topology
        self._addresses = Addresses(topology)

    def underlay(self) -> None:
        netns, mtu = self._paths.underlay_netns, self._topology.mtu
        kind = "type bridge forward_delay 0 mcast_snooping 0"
        host.add_netns(netns)
        host.ip(netns, [f"link add {BRIDGE} mtu {mtu} {kind}", f"link set {BRIDGE} up"])

    def control_plane(self, order: int, cluster: Cluster) -> None:
        netns = self._paths.control_plane_netns(cluster.name)
        host.add_netns(netns)
        host.set_sysctls(netns, QUIET)
        families = self._addresses.families()
        ips = [self._addresses.control_plane(cluster.name, family) for family in families]
        self._plug(netns, f"c{order}-control", ips)

    def node(self, order: int, cluster: Cluster, number: int) -> None:
        """A node with its underlay address, its overlay address, and routes to its siblings."""
        netns = self._paths.node_netns(cluster.name, f"node-{number}")
        host.add_netns(netns)
        host.set_sysctls(netns, ROUTER)
        addresses = self._addresses
        families = addresses.families()
        ips = [addresses.node(cluster.name, number, family) for family in families]
        self._plug(netns, f"c{order}-node-{number}", ips)
        commands = []
        for family in families:
            overlay = addresses.overlay(cluster.name, number, family)
            commands.append(f"addr add {overlay}/{_host_bits(family)} dev lo")
            for other in range(1, cluster.nodes + 1):
                if other != number:
                    cidr = addresses.pod_cidr(cluster.name, other, family)
                    gateway = addresses.node(cluster.name, other, family)
                    commands.append(f"route add {cidr} via {gateway} dev eth0")
        host.ip(netns, commands)

    def pod(self, pod: Pod) -> None:
        """A pod's namespace, its link to the node, and the node's route to it."""
        paths, mtu = self._paths, self._topology.pod_mtu
        node = paths.node_netns(pod.cluster, pod.node_name)
        netns = paths.pod_netns(pod.cluster, pod.name)
        link, peer = f"pod{pod.slot}", f"peer name eth0 mtu {mtu} netns {netns}"
        host.add_netns(netns)
        host.set_sysctls(netns, QUIET)
        host.ip(
            node,
            [
                f"link add {link} address {GATEWAY_MAC} mtu {mtu} type veth {peer}",
                f"link set {link} up",
                *(f"route add {ip} dev {link}" for ip in pod.ips),
            ],
        )
        host.ip(netns, ["link set eth0 up", *_pod_commands(pod.ips)])
        for netns, commands in self._reached(pod):
            host.ip(netns, [f"{what} add {rest}" for what, rest in commands])

    def remove_pod(self, pod: Pod) -> None:
        """Deleting the namespace deletes the link and with it the node's route."""
        for netns, commands in self._reached(pod):
            host.ip(netns, [f"{what} del {rest}" for what, rest in commands])
        host.delete_netns(self._paths.pod_netns(pod.cluster, pod.name))

    def _reached(self, pod: Pod) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """What a pod's network asks for beside its link: by namespace, rules and routes."""
        cluster = self._topology.cluster(pod.cluster)
        if cluster.network is PodNetwork.VPC:
            netns = self._paths.node_netns(pod.cluster, pod.node_name)
            yield netns, self._around_main(pod, cluster)
        if self._addresses.lender(pod.cluster, pod.node, pod.slot) != pod.node:
            for other in range(1, cluster.nodes + 1):
                if other != pod.node:
                    netns = self._paths.node_netns(pod.cluster, f"node-{other}")
                    yield netns, [("route", self._via(pod, ip)) for ip in pod.ips]

    def _around_main(self, pod: Pod, cluster: Cluster) -> list[tuple[str, str]]:
        """From the pod only its own table counts: the other nodes and their pods, nothing else."""
        table, commands = POD_TABLES + pod.slot, []
        for ip in pod.ips:
            commands += [
                ("rule", f"pref {TO_POD} to {ip} lookup main"),
                ("rule", f"pref {FROM_POD} from {ip} lookup {table}"),
            ]
        for family in self._addresses.families():
            commands.append(("route", f"unreachable {_default(family)} table {table}"))
            for other in range(1, cluster.nodes + 1):
                if other != pod.node:
                    cidr = self._addresses.pod_cidr(pod.cluster, other, family)
                    gateway = self._addresses.node(pod.cluster, other, family)
                    commands.append(("route", f"{gateway} dev eth0 table {table}"))
                    commands.append(("route", f"{cidr} via {gateway} dev eth0 table {table}"))
        return commands

    def _via(self, pod: Pod, ip: str) -> str:
        return f"{ip} via {self._addresses.node(pod.cluster, pod.node, 6 if ':' in ip else 4)}"

    def _plug(self, netns: str, port: str, ips: Iterable[str]) -> None:
        underlay, mtu = self._paths.underlay_netns, self._topology.mtu
        host.ip(
            netns,
            [
                f"link add eth0 mtu {mtu} type veth peer name {port} mtu {mtu} netns {underlay}",
                "link set eth0 up",
                *(
                    f"addr add {ip}/{self._addresses.underlay_prefix(6 if ':' in ip else 4)}"
                    f" dev eth0{' nodad' if ':' in ip else ''}"
                    for ip in ips
                ),
            ],
        )
        host.ip(underlay, [f"link set {port} master {BRIDGE}", f"link set {port} up"])


def _pod_commands(ips: Iterable[str]) -> list[str]:
    commands: list[str] = []
    for ip in ips:
        six = ":" in ip
        gateway = POD_GATEWAY6 if six else POD_GATEWAY
        commands.append(f"addr add {ip}/{_host_bits(6 if six else 4)} dev eth0{' nodad' * six}")
        commands.append(f"neigh add {gateway} lladdr {GATEWAY_MAC} dev eth0 nud permanent")
        if not six:
            commands.append(f"route add {gateway} dev eth0 scope link")
        commands.append(f"route add default via {gateway} dev eth0")
    return commands


def _default(family: int) -> str:
    return "::/0" if family == 6 else "0.0.0.0/0"


def _host_bits(family: int) -> int:
    return 128 if family == 6 else 32
