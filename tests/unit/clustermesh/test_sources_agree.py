"""Random objects give the same keys, whether they come as manifests or from an API server."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from random import Random
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from clustermesh.export import Exporter, ExportSettings, Flavour, SliceExport
from clustermesh.identities import Allocator
from clustermesh.keys import identity_range
from clustermesh.sources.directory.folder import Folder
from clustermesh.sources.directory.parse import parse
from clustermesh.sources.kubernetes.follow import Follower
from clustermesh.sources.kubernetes.resources import RESOURCES
from clustermesh.sources.kubernetes.resources import Flavour as Offered
from clustermesh.sources.kubernetes.settings import KubernetesSettings
from clustermesh.sources.objects import ObjectKind, ref
from clustermesh.sources.port import ObjectChange, Upsert
from tests.support.clock import run
from tests.support.kube import manifests as make
from tests.support.kube.catalog import of_crd
from tests.support.kube.direct import DirectApi
from tests.support.kube.manifests import Manifest
from tests.support.kube.sink import RecordingSink

SETTINGS = KubernetesSettings(watch_list=False, page_limit=3)

# --- objects -----------------------------------------------------------------------------------

ODD = [
    "",
    "true",
    "True",
    " true",
    "yes",
    "1",
    "0x1F",
    "12:30",
    "1:2:3:4:5:6:7:8",
    "=",
    "~",
    "null",
]
words = st.sampled_from([*ODD, "<&>", "é\u2028", "a: b", "- x", "'", '"', "#", "x" * 90]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=6
)
maps = st.none() | st.dictionaries(words, words, max_size=3)
flags = st.sampled_from(["true", "true", "tRuE", "false", "1", ""])
names = st.sampled_from(["a", "b", "c.d"])
spaces = st.sampled_from(["shop", "db"])
ANNOTATIONS = (
    "service.cilium.io/global",
    "io.cilium/global-service",
    "service.cilium.io/shared",
    "io.cilium/shared-service",
    "service.cilium.io/affinity",
)
protocols = st.sampled_from(["TCP", "UDP", "SCTP", None])
numbers = st.sampled_from([0, 1, 80, 8080, 65535, 70000])


@st.composite
def ips(draw: st.DrawFn, subnet: int) -> str:
    """An address in one of its spellings, or nothing of the kind."""
    host = draw(st.integers(0, 255))
    spelling = ["10.{0}.0.{1}", "::ffff:10.{0}.0.{1}", "FD00:0:{0:x}::{1:X}", "10.{0}.0.0{1}", ""]
    return draw(st.sampled_from(spelling)).format(subnet, host)


def fields(**choices: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A map in which each field is there, absent or null."""
    return st.fixed_dictionaries({}, optional={key: st.none() | of for key, of in choices.items()})


def several(of: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(of, max_size=most)


def objects(
    api: str, kind: str, rest: st.SearchStrategy[dict[str, Any]], *, spaced: bool = True
) -> st.SearchStrategy[Manifest]:
    """Objects of a kind with labels and annotations of every sort."""
    meta = st.fixed_dictionaries(
        {"name": names, **({"namespace": spaces} if spaced else {})},
        optional={"labels": maps, "annotations": maps},
    )
    return st.builds(
        lambda about, more: {"apiVersion": api, "kind": kind, "metadata": about, **more}, meta, rest
    )


def wished(manifest: Manifest, key: str, value: dict[str, str]) -> Manifest:
    """With more labels or annotations than chance gave it."""
    meta = manifest["metadata"]
    return {**manifest, "metadata": {**meta, key: {**(meta.get(key) or {}), **value}}}


namespaces = st.builds(
    lambda name, value, labels: {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {"clustermesh.cilium.io/global": value},
        },
    },
    spaces,
    flags,
    maps,
)
services = st.builds(
    lambda each, told: wished(each, "annotations", told),
    objects(
        "v1",
        "Service",
        fields(
            spec=fields(
                type=st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
                clusterIP=ips(96) | st.just("None"),
                clusterIPs=several(ips(96), 2),
                ports=several(fields(name=words, port=numbers, protocol=protocols)),
                selector=maps,
                externalIPs=several(ips(97), 1),
            )
        ),
    ),
    st.fixed_dictionaries(
        {"service.cilium.io/global": flags}, optional=dict.fromkeys(ANNOTATIONS[1:], flags)
    ),
)
conditions = fields(ready=st.booleans(), serving=st.booleans(), terminating=st.booleans())
slices = st.builds(
    lambda each, owner: wished(each, "labels", {"kubernetes.io/service-name": owner}),
    objects(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        fields(
            addressType=st.sampled_from(["IPv4", "IPv6", "FQDN"]),
            ports=several(fields(name=words, port=numbers, protocol=protocols)),
            endpoints=several(
                fields(
                    addresses=several(ips(7), 2),
                    conditions=conditions,
                    hostname=words,
                    zone=words,
                    nodeName=words,
                    hints=fields(forZones=several(fields(name=words), 2)),
                )
            ),
        ),
    ),
    names,
)
exports = objects("multicluster.x-k8s.io/v1alpha1", "ServiceExport", st.just({}))
cidrs = st.builds("{}/{}".format, ips(8), st.integers(0, 40))
pairs = fields(ipv4=ips(9), ipv6=ips(9))
cilium_nodes = objects(
    "cilium.io/v2",
    "CiliumNode",
    fields(
        spec=fields(
            addresses=several(fields(type=words, ip=ips(5))),
            ipam=fields(
                podCIDRs=several(cidrs),
                pools=fields(allocated=several(fields(cidrs=several(cidrs)))),
            ),
            encryption=fields(key=st.integers(0, 600)),
            health=pairs,
            bootid=words,
        )
    ),
    spaced=False,
)
identities = objects(
    "cilium.io/v2", "CiliumIdentity", st.fixed_dictionaries({"security-labels": maps}), spaced=False
)


def endpoints(manifest: Manifest, subnet: int, status: dict[str, Any]) -> Manifest:
    """Addresses are each object's own: of two that claim one, the first to come has it."""
    ip = f"10.{100 + 10 * ('ab'.find(manifest['metadata']['name']) + 1)}.{subnet}.1"
    networking = {"addressing": [{"ipv4": ip}, status.pop("more")], "node": status.pop("node")}
    return {**manifest, "status": {**status, "networking": networking}}


cilium_endpoints = st.builds(
    lambda each, status: endpoints(each, len(each["metadata"]["namespace"]), status),
    objects("cilium.io/v2", "CiliumEndpoint", st.just({})),
    st.fixed_dictionaries(
        {"more": fields(ipv4=st.just("")), "node": ips(5)},
        optional={
            "identity": fields(id=st.integers(0, 1 << 33)),
            "encryption": fields(key=st.integers(0, 600)),
            "service-account": words,
        },
    ),
)
nodes = objects(
    "v1",
    "Node",
    fields(
        spec=fields(podCIDR=cidrs, podCIDRs=several(cidrs, 2)),
        status=fields(
            addresses=several(fields(type=words, address=ips(5))), nodeInfo=fields(bootID=words)
        ),
    ),
    spaced=False,
)


def with_address(manifest: Manifest, phase: str | None, host: str) -> Manifest:
    meta = manifest["metadata"]
    ip = f"10.{100 + 10 * ('ab'.find(meta['name']) + 1)}.{len(meta['namespace'])}.1"
    return {**manifest, "status": {"phase": phase, "hostIP": host, "podIP": ip, "podIPs": None}}


pods = st.builds(
    with_address,
    objects("v1", "Pod", fields(spec=fields(nodeName=names, hostNetwork=st.booleans()))),
    st.sampled_from(["Running", "Pending", None]),
    ips(5),
)
OF_ALL = (namespaces, services, services, slices, slices, exports)
WORLDS = {
    Flavour.CILIUM: st.one_of(*OF_ALL, cilium_nodes, identities, cilium_endpoints),
    Flavour.CORE: st.one_of(*OF_ALL, nodes, pods),
}

# --- both ways -----------------------------------------------------------------------------------

Named = tuple[str, str, str]


def named(manifest: Manifest) -> Named:
    meta = manifest["metadata"]
    return manifest["kind"], meta.get("namespace", ""), meta["name"]


class Cluster:
    """An API server and a directory that hold the same, and what is published of each."""

    def __init__(self, flavour: Flavour) -> None:
        self.settings = ExportSettings(
            cluster="paris", cluster_id=7, flavour=flavour, mcs_api=True, slices=SliceExport.BOTH
        )
        self.offered = Offered(flavour.value)
        self.api = DirectApi()
        for crd in (*make.CILIUM, make.SERVICE_EXPORTS):
            self.api.catalog.add(of_crd(crd))
        self.there, self.here = (
            Exporter(self.settings, Allocator(identity_range(7))) for _ in range(2)
        )
        self.folder = Folder()
        self.sink = RecordingSink()
        self.sink.on_apply = self.there.apply

    @contextlib.asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """The API server is followed all the while."""
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(
                    Follower(self.api, each, self.sink, SETTINGS, random=Random(1)).run()
                )
                for each in RESOURCES[self.offered]
                if each.kind in self.settings.kinds
            ]
            try:
                yield
            finally:
                for task in running:
                    task.cancel()

    async def become(
        self, before: Iterable[Manifest], wanted: Sequence[Manifest], *, as_yaml: bool
    ) -> None:
        """Make the API server hold these and no others, and the files what it then holds."""
        kept = {named(each) for each in wanted}
        for manifest in before:
            if named(manifest) not in kept:
                await self.api.drop(manifest)
        for manifest in wanted:
            await self.api.put(manifest)
        await asyncio.sleep(1)  # virtual: everything that can happen does
        self._write([self._held(each) for each in wanted], as_yaml=as_yaml)

    def _held(self, manifest: Manifest) -> Manifest:
        kind = self.api.catalog.of(manifest)
        meta = manifest["metadata"]
        held = self.api.store.objects[kind.title][meta.get("namespace", ""), meta["name"]]
        return {**held, "kind": manifest["kind"], "apiVersion": manifest["apiVersion"]}

    def _write(self, held: list[Manifest], *, as_yaml: bool) -> None:
        if as_yaml:
            text = yaml.safe_dump_all(held)
        else:
            text = json.dumps({"kind": "List", "apiVersion": "v1", "items": held})
        parsed = parse(text.encode())
        assert not parsed.problems
        assert len(parsed.objects) == len(held)
        by_kind: dict[ObjectKind, list[ObjectChange]] = {kind: [] for kind in ObjectKind}
        for change in self.folder.put("all.yaml", parsed):
            name = ref(change.object) if isinstance(change, Upsert) else change.ref
            by_kind[name.kind].append(change)
        for kind, changes in by_kind.items():
            self.here.apply(kind, changes)


async def story(flavour: Flavour, steps: Sequence[Sequence[Manifest]], *, as_yaml: bool) -> None:
    cluster = Cluster(flavour)
    async with cluster.followed():
        before: list[Manifest] = []
        for step in steps:
            wanted = list({named(each): each for each in step}.values())
            await cluster.become(before, wanted, as_yaml=as_yaml)
            assert not cluster.sink.refusals
            assert cluster.here.wanted() == cluster.there.wanted()
            before = wanted


def worlds(flavour: Flavour) -> st.SearchStrategy[list[list[Manifest]]]:
    return st.lists(st.lists(WORLDS[flavour], max_size=8), min_size=1, max_size=3)


@given(worlds(Flavour.CILIUM), st.booleans())
def test_ciliums_objects(steps: list[list[Manifest]], as_yaml: bool) -> None:
    run(story(Flavour.CILIUM, steps, as_yaml=as_yaml))


@given(worlds(Flavour.CORE), st.booleans())
def test_pods_and_nodes(steps: list[list[Manifest]], as_yaml: bool) -> None:
    run(story(Flavour.CORE, steps, as_yaml=as_yaml))
