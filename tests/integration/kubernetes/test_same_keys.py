"""The same objects give the same keys, whether a directory or an API server holds them."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import yaml

from clustermesh.export import Exporter, ExportSettings, Flavour
from clustermesh.identities import Allocator
from clustermesh.keys import identity_range
from clustermesh.sources.directory.source import DirectorySettings, DirectorySource
from clustermesh.sources.objects import KubernetesObject, ObjectKind, ref
from clustermesh.sources.port import Upsert
from tests.support.kube import manifests as make
from tests.support.kube.fake import fake_kube
from tests.support.kube.follow import following
from tests.support.kube.kubeserver import Kube, Opens, running
from tests.support.kube.manifests import Manifest
from tests.support.kube.sink import RecordingSink, eventually
from tests.support.vectors import APISERVER

GLOBAL = {"service.cilium.io/global": "true"}


def exported(flavour: Flavour, found: list[KubernetesObject]) -> dict[str, bytes]:
    """The keys of these objects, handed over in the order of their names."""
    settings = ExportSettings(cluster="paris", cluster_id=7, flavour=flavour)
    exporter = Exporter(settings, Allocator(identity_range(7, 255)))
    for kind in sorted(settings.kinds, key=lambda each: (each != ObjectKind.NAMESPACE, each)):
        ours = sorted((each for each in found if ref(each).kind is kind), key=ref)
        exporter.apply(kind, [Upsert(each) for each in ours])
    return exporter.wanted()


@contextlib.asynccontextmanager
async def reading(folder: Path, flavour: Flavour) -> AsyncIterator[RecordingSink]:
    """A sink that a directory source tells everything."""
    kinds = ExportSettings(cluster="paris", cluster_id=7, flavour=flavour).kinds
    sink = RecordingSink()
    sink.kinds = kinds
    async with asyncio.TaskGroup() as tasks:
        source = DirectorySource(DirectorySettings(path=folder), kinds)
        task = tasks.create_task(source.run(sink))
        try:
            yield sink
        finally:
            task.cancel()


async def compare(kube: Kube, folder: Path, flavour: Flavour, wanted: list[Manifest]) -> None:
    """Both sources, following all the while, come to tell the same."""
    await asyncio.to_thread(folder.mkdir)
    some = [each for n, each in enumerate(wanted) if n % 2 or each["kind"] == "Namespace"]
    async with following(kube.kubeconfig()) as there, reading(folder, flavour) as here:
        for step in (wanted, some, wanted):
            await become(kube, folder, wanted, step)
            await eventually(lambda step=step: ours(here, wanted, len(step)))
            await eventually(lambda step=step: ours(there, wanted, len(step)))
            await eventually(
                lambda: (
                    exported(flavour, ours(here, wanted)) == exported(flavour, ours(there, wanted))
                )
            )
            assert exported(flavour, ours(here, wanted))
        assert not there.refusals
        assert not here.refusals


def ours(sink: RecordingSink, wanted: list[Manifest], count: int = 0) -> list[KubernetesObject]:
    """A real cluster holds objects of its own; these are the test's. Empty unless ``count``."""
    names = {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"])
        for each in wanted
    }
    found = [
        object_
        for name, object_ in sink.objects.items()
        if (name.kind.value, name.namespace, name.name) in names
    ]
    return found if count in {0, len(found)} else []


def recorded() -> list[Manifest]:
    """What the real component was given when it was recorded; some of it no server would take."""
    text = (APISERVER / "objects.yaml").read_text(encoding="utf-8")
    kinds = {"Namespace", "Service", "EndpointSlice", "CiliumNode", "CiliumIdentity"}
    found = [
        item
        for document in yaml.load_all(text, yaml.CSafeLoader)
        for item in document["items"]
        if item["kind"] in {*kinds, "CiliumEndpoint"}
    ]
    found.sort(key=lambda item: item["kind"] != "Namespace")
    for item in found:
        del item["metadata"]["resourceVersion"]
    return found


async def become(kube: Kube, folder: Path, before: list[Manifest], wanted: list[Manifest]) -> None:
    """Make the API server hold these, and the directory what the API server makes of them."""
    for manifest in before:
        if manifest not in wanted:
            await kube.admin.delete(manifest)
            path_of(folder, manifest).unlink()
    for manifest in wanted:
        await kube.admin.apply(manifest)
        fresh = path_of(folder, manifest).with_suffix(".new")
        fresh.write_text(json.dumps(await kube.admin.get(manifest)))
        fresh.rename(path_of(folder, manifest))


def path_of(folder: Path, manifest: Manifest) -> Path:
    meta = manifest["metadata"]
    return folder / f"{manifest['kind']}-{meta.get('namespace', '')}-{meta['name']}.yaml"


def shared() -> list[Manifest]:
    generator = random.Random(1)
    made: list[Manifest] = []
    for number in range(6):
        made.append(make.service(f"s{number}", f"10.96.2.{number + 1}", **GLOBAL))
        ips = [f"10.1.{number}.{host}" for host in range(1, generator.randint(2, 5))]
        made.append(make.endpoint_slice(f"s{number}-a", f"s{number}", *ips))
    return made


async def test_pods_and_nodes(opens: Opens, tmp_path: Path) -> None:
    own = [make.node(f"n{n}", f"192.168.0.{n}", f"10.1.{n}.0/24") for n in range(1, 5)]
    pods = [make.pod(f"p{n}", f"10.1.1.{n}") for n in range(1, 9)]
    async with running(opens, tmp_path) as kube:
        await compare(kube, tmp_path / "manifests", Flavour.CORE, [*shared(), *own, *pods])


async def test_ciliums_kinds(opens: Opens, tmp_path: Path) -> None:
    own = [make.cilium_node(f"n{n}", f"192.168.0.{n}", f"10.1.{n}.0/24") for n in range(1, 5)]
    identities = [make.cilium_identity(70000 + n, app=f"a{n}") for n in range(5)]
    endpoints = [make.cilium_endpoint(f"e{n}", f"10.1.1.{n}", 70000 + n) for n in range(1, 5)]
    everything = [*shared(), *own, *identities, *endpoints]
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(*make.CILIUM)
        await compare(kube, tmp_path / "manifests", Flavour.CILIUM, everything)


async def test_the_recorded_objects(tmp_path: Path) -> None:
    async with running(fake_kube, tmp_path) as kube:
        await kube.admin.apply(*make.CILIUM)
        await compare(kube, tmp_path / "manifests", Flavour.CILIUM, recorded())
