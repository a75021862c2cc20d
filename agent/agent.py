"""The agent: its parts, who owns what, and how facts flow between them, in one direction.

etcds -> remotes, own -> dataplane -> maps
                            `-> network -> device, routes, rules
"""

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from agent import api, datapath_metrics, interpreter, metrics
from agent.audit.addresses import Here
from agent.audit.auditor import Auditor, AuditSettings, Standing
from agent.balancing import Balancing
from agent.dataplane import Dataplane
from agent.explain import explain, premises, trace, wiring
from agent.explain.diagnose import Diagnoser
from agent.explain.passing import Passing
from agent.facts import LocalKind, Me
from agent.memory import Memory
from agent.monitor.monitor import Monitor
from agent.monitor.names import Names
from agent.network.asked import Asking
from agent.network.keeper import Keeper
from agent.probes.knock import knock
from agent.probes.prober import Prober
from agent.propagation import Propagations
from agent.remotes.hearing import Hearing
from agent.remotes.lane import Lane
from agent.remotes.own import Own
from agent.remotes.remotes import Places, Remotes
from agent.settings import PINS, Settings
from agent.sockets.closer import Closer
from bpf.datapath import Datapath
from bpf.propagation import open_map as open_propagation
from clustermesh.health import Board
from clustermesh.http import Surface, serve
from clustermesh.keys import Kind
from clustermesh.logs import Control
from clustermesh.model import IPEntry
from clustermesh.remotes import way
from clustermesh.status import AgentStatus, RemoteStatus
from clustermesh.trust.expiry import InUse
from clustermesh.version import VERSION
from kvstore.shared import Connections

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

log = structlog.get_logger()

OWN, REMOTES, NETWORK, NODE = "own cluster", "remote clusters", "network", "node"
CONFIGURATION = "configuration"
TCP_IP_HEADERS: Final = 40
NANOSECONDS: Final = 1_000_000_000


class Agent:
    """One node's agent. Every part has one task; the parts are wired here and nowhere else."""

    def __init__(
        self,
        settings: Settings,
        *,
        datapath: Datapath,
        balancing: Balancing | None,
        cgroup: Path,
        log: Control,
    ) -> None:
        self._settings = settings
        self._datapath = datapath
        self._balancing = balancing
        self._cgroup = cgroup
        self._control = log
        self._started = time.time()
        self._board = Board()
        self._me = Me(
            settings.cluster_name,
            settings.cluster_id,
            settings.node,
            settings.node_ip,
            settings.max_connected_clusters,
            frozenset(settings.native_routing) - {settings.cluster_name},
        )
        self._certificates = InUse(
            own=settings.cluster_name,
            client=settings.etcd_config,
            remotes=settings.clustermesh_config,
        )
        self._dataplane = Dataplane(datapath.maps, self._me, settings)
        self._network = Keeper(settings, attach=self._attach, report=self._network_changed)
        self._asking = Asking(self._me, self._dataplane, self._network.demand)
        self._dataplane.on_routes = self._want_network
        self._network.on_round = self._dataplane.wake
        self._dataplane.routed = self._routed
        self._closer = Closer(
            datapath.maps.reverse_sockets4, datapath.maps.reverse_sockets6, cgroup
        )
        self._dataplane.on_removed = self._closer.removed
        self._prober = Prober(
            settings.node,
            settings.probes,
            told=self._dataplane.unreachable,
        )
        self._memory = Memory(settings, self._me, self._dataplane, self._board)
        self._propagation = Propagations(
            open_propagation(settings.bpf_root / PINS / "maps"),
            wake=self._dataplane.wake,
            delay=settings.propagation_delay,
        )
        self._dataplane.on_written = self._propagation.land
        self._dataplane.on_drained = self._drained
        lane = Lane()
        self._heard = Hearing(self._dataplane, self._me, changed=self._want_network)
        self._connections = Connections()
        self._own = Own(
            settings.etcd_config,
            me=self._me,
            sink=self._heard,
            opener=self._connections.open,
            waits=settings.waits,
            report=self._own_changed,
            listen=self._propagation.listen,
            lane=lane,
        )
        self._remotes = Remotes(
            Places(
                directory=settings.clustermesh_config,
                scan_interval=settings.scan_interval,
            ),
            me=self._me,
            sink=self._dataplane,
            checkpoint=self._memory.remotes,
            opener=self._connections.open,
            waits=settings.waits,
            report=self._board.reporter(CONFIGURATION),
            listen=self._propagation.listen,
            lane=lane,
        )
        self._auditor = Auditor(
            Here(*self._me),
            datapath.maps,
            AuditSettings(
                own=settings.etcd_config,
                remotes=settings.clustermesh_config,
                every_service=settings.kube_proxy_replacement,
                table_size=settings.table_size,
                host_routes=settings.host_routes,
                interval=settings.audit_interval,
            ),
            opener=self._connections.open,
            standing=self._standing,
            rewrite=self._dataplane.rewrite,
            routing=self._network,
        )
        names = Names(
            self._dataplane,
            self._pod_of,
            lifetime=settings.monitor_names,
            patience=settings.monitor_patience,
        )
        self._monitor = Monitor(
            datapath.listen,
            names,
            node=f"{self._me.cluster}/{self._me.node}",
            beat=settings.monitor_beat,
        )
        self._diagnoser = Diagnoser(
            self._me,
            settings.clustermesh_config,
            opener=self._connections.open,
            statuses=lambda: self._remotes.statuses(self._dataplane.count),
            held=self._dataplane.explainer.held,
            heartbeat_limit=settings.heartbeat_limit,
        )
        self._passing = Passing(self._me, settings.tunnel_port)
        self._fresh = asyncio.Event()

    async def run(self, sockets: list[socket.socket]) -> None:
        """Until cancelled. Everything stays in place then."""
        for part in (OWN, REMOTES, NETWORK):
            self._board.require_once(part)
        self._configure_datapath()
        self._memory.adopt()
        interpreter.prepare()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._dataplane.run(), name="dataplane")
            tasks.create_task(self._connections.run(), name="etcds")
            tasks.create_task(self._own.run(), name="own")
            tasks.create_task(self._remotes.run(), name="remotes")
            tasks.create_task(self._memory.run(), name="memory")
            tasks.create_task(self._network.run(), name="network")
            if not self._settings.kube_proxy_replacement:
                tasks.create_task(self._stamp(), name="stamp")
            if self._balancing is not None:
                tasks.create_task(self._balancing.run(), name="connections")
            tasks.create_task(self._prober.run(), name="probes")
            tasks.create_task(self._closer.run(), name="sockets")
            tasks.create_task(self._settle(), name="settle")
            tasks.create_task(self._auditor.run(), name="audit")
            tasks.create_task(serve(self._surface(), sockets), name="http")
            log.info("started", node=self._me.node, cluster=self._me.cluster, version=VERSION)

    # -- the kernel's side ----------------------------------------------------------------------

    def _configure_datapath(self) -> None:
        """What the programs read of us. What is right already is not written."""
        self._datapath.state.configure(
            stale_after=int(self._settings.stale_after * NANOSECONDS),
            cluster_id=self._me.cluster_id,
        )
        if self._settings.kube_proxy_replacement:
            self._datapath.state.never_stale()
        self._datapath.attach_sock_lb(self._cgroup)

    def _attach(self, ifindex: int) -> bool:
        """All attachments, compared in every round of the network: links can die, too."""
        changed = self._datapath.attach_overlay(ifindex)
        if self._balancing is not None:
            changed = self._balancing.attach() or changed
        return self._datapath.attach_sock_lb(self._cgroup) or changed

    def _drained(self, cluster: str, cluster_id: int) -> None:
        """A cluster has left the mesh."""
        self._propagation.forget(cluster, cluster_id)
        self._memory.forget(cluster_id)

    def _routed(self) -> bool:
        """Services lead to other clusters only when there is a way (a comparison always ends).
        Nobody waits for the way to a cluster that no service leads to yet."""
        if not self._network.ready:
            return not self._dataplane.routes()
        return all(map(self._dataplane.unused, self._network.lacking))

    def _network_changed(self, trouble: str | None) -> None:
        last = self._network.last
        if last is None or last.link is None:
            self._board.degraded(NETWORK, trouble or "the device is not there")
            return
        self._board.ok(NETWORK)
        self._board.reporter(NODE)(trouble)
        self._datapath.state.configure(mss=last.link.mtu - TCP_IP_HEADERS)

    def _want_network(self) -> None:
        """Tell the network what the facts ask of it, once the own cluster's nodes are known."""
        if not self._own.progress.confirmed:
            return
        for cluster, node, address in self._dataplane.take_overlays():
            self._prober.aim(cluster, node, address)
        self._asking.ask(pods=self._heard.pods, complete=self._remotes.complete)
        self._network.asked()

    # -- freshness and readiness ----------------------------------------------------------------

    def _own_changed(self, trouble: str | None) -> None:
        self._board.reporter(OWN)(trouble)
        if trouble is None:
            self._fresh.set()
            self._want_network()

    async def _stamp(self) -> None:
        """Say to the programs that our facts are fresh, as long as they are (design: stale).

        With kube-proxy replaced nobody else serves a local backend: then facts never go stale.
        """
        while True:
            if self._own.fresh:
                self._datapath.state.stamp(time.monotonic_ns())
                await asyncio.sleep(self._settings.stamp_interval)
            else:
                self._fresh.clear()
                await self._fresh.wait()

    async def _settle(self) -> None:
        """The start is over when every remote was ready once, or was waited for long enough."""
        await self._remotes.settled.wait()
        self._board.ok(REMOTES)
        self._want_network()
        interpreter.settled()
        log.info("settled", took=round(time.time() - self._started, 3))

    async def _pod_of(self, cluster: str, address: str) -> IPEntry | None:
        """What an address's own cluster says of it."""
        if cluster == self._me.cluster:
            fact = await self._own.fact(Kind.IPS, address)
        else:
            fact = await self._remotes.fact(cluster, Kind.IPS, address)
        return fact if isinstance(fact, IPEntry) else None

    def _standing(self) -> Standing:
        """What an audit has to know of us."""
        unready = "" if self._board.ready else "the agent is not ready"
        if not self._own.fresh:
            unready = "what the agent knows of its own cluster is not complete"
        remotes = self._remotes.statuses(self._dataplane.count)
        return Standing(
            unready=unready,
            absent={
                it.name: it.held or it.status or "not ready"
                for it in remotes
                if it.held or not it.ready
            },
            ids={it.name: it.config.cluster_id for it in remotes},
            unreachable=self._prober.silent,
        )

    # -- what we say of ourselves ---------------------------------------------------------------

    def _surface(self) -> Surface:
        return Surface(
            title="clustermesh-agent",
            board=self._board,
            log=self._control,
            status=self.status,
            registry=metrics.registry(self.status, self._datapath_metrics),
            reads={
                **api.reads(
                    self._dataplane,
                    lambda: self._remotes.statuses(self._dataplane.count),
                    self._prober.statuses,
                ),
                "/v1/probes/now": api.probed(self._prober.now),
                "/v1/monitor": api.monitor(self._monitor.lines),
                "/v1/audit": api.audit(self._auditor.audit),
                "/v1/explain": explain.answer(self._dataplane.explainer, self._everybody),
                "/v1/troubleshoot": self._diagnoser.troubleshoot,
                "/v1/network": wiring.answer(self._settings.place),
                "/v1/trace": trace.answer(
                    self._me,
                    self._datapath.maps,
                    self._dataplane.identity,
                    device=self._settings.device,
                ),
                "/v1/premises": premises.answer(
                    self._me,
                    self._dataplane.nodes,
                    self._dataplane.explainer.local_services,
                    self._settings.place,
                ),
            },
            actions={
                "/v1/audit": api.audit(self._auditor.repair),
                "/v1/reach": way.reach,
                **self._passing.actions(),
                "/v1/knock": knock,
            },
        )

    def _datapath_metrics(self) -> "Iterator[Metric]":
        yield from datapath_metrics.families(self._datapath, self._datapath.maps.metrics)
        if self._balancing is not None:
            yield from self._balancing.families()

    def _everybody(self) -> list[RemoteStatus]:
        count = self._dataplane.count
        return [self._own.status(count), *self._remotes.statuses(count)]

    def _measured(self, remote: RemoteStatus) -> RemoteStatus:
        """With what is measured on the way to it."""
        probe = self._prober.of(remote.name)
        return msgspec.structs.replace(
            remote,
            rtt=probe.rtt if probe else None,
            loss=probe.loss if probe else None,
            propagation=self._propagation.told(remote.name, remote.round_trip),
        )

    def status(self) -> AgentStatus:
        """GET /v1/status."""
        dataplane = self._dataplane
        own, *remotes = map(self._measured, self._everybody())
        return AgentStatus(
            node=self._me.node,
            cluster=self._me.cluster,
            cluster_id=self._me.cluster_id,
            version=VERSION,
            ready=self._board.ready,
            started=self._started,
            own=own,
            remotes=tuple(remotes),
            num_services=dataplane.count(self._me.cluster, LocalKind.SERVICES),
            num_global_services=self._heard.global_services,
            maps=dataplane.counts(),
            map_writes=dataplane.map_writes,
            written=dataplane.idle,
            trouble=(
                *self._board.trouble(),
                *self._remotes.trouble(),
                *dataplane.trouble(),
                *self._prober.trouble(),
                *self._closer.sentences(),
                *(self._balancing.trouble() if self._balancing is not None else ()),
                *self._auditor.trouble(),
            ),
            refusals=tuple(dataplane.refusals),
            certificates=self._certificates.read(),
            audited=self._auditor.last.at if self._auditor.last else 0.0,
            differences=len(self._auditor.last.differences) if self._auditor.last else 0,
        )
