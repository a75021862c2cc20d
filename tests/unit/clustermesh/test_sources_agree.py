"""Random objects give the same keys, whether they come as manifests or from an API server."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from random import Random

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
from tests.support.worlds import named, world

SETTINGS = KubernetesSettings(watch_list=False, page_limit=3)

# --- both ways -----------------------------------------------------------------------------------


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
            await cluster.become(before, step, as_yaml=as_yaml)
            assert not cluster.sink.refusals
            assert cluster.here.wanted() == cluster.there.wanted()
            before = list(step)


def worlds(flavour: Flavour) -> st.SearchStrategy[list[list[Manifest]]]:
    return st.lists(world(flavour), min_size=1, max_size=3)


@given(worlds(Flavour.CILIUM), st.booleans())
def test_ciliums_objects(steps: list[list[Manifest]], as_yaml: bool) -> None:
    run(story(Flavour.CILIUM, steps, as_yaml=as_yaml))


@given(worlds(Flavour.CORE), st.booleans())
def test_pods_and_nodes(steps: list[list[Manifest]], as_yaml: bool) -> None:
    run(story(Flavour.CORE, steps, as_yaml=as_yaml))
