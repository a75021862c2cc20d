"""Derived services of a directory: published as if they were in its files, from present facts."""

import random
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from clustermesh import local
from clustermesh.export import Exporter, ExportSettings
from clustermesh.export.mcs import derived_name
from clustermesh.mcs import pool
from clustermesh.mcs.embedded import Embedded
from clustermesh.mcs.imports import Imports
from clustermesh.mcs.pool import Pool
from clustermesh.sources import objects
from clustermesh.sources.objects import ObjectKind, Ref
from clustermesh.sources.port import ObjectChange, Removal, Upsert
from clustermesh.status import ImportStatus
from tests.support.mcs import SPACE, export, own_export, service, slice_of

DERIVED = derived_name(SPACE, "cart")
HERE = f"cilium/state/services/v1/paris/{SPACE}/{DERIVED}"
LOCAL = f"{local.SERVICES_PREFIX}{SPACE}/{DERIVED}"
NAME = (SPACE, "cart")


class World:
    """An exporter behind an importer; keys as they would be in etcd."""

    def __init__(self) -> None:
        export_settings = ExportSettings(cluster="paris", cluster_id=7, mcs_api=True)
        self.exporter = Exporter(export_settings)
        self.refusals: dict[str, str] = {}
        imports = Imports(
            "paris", self.exporter.picture, global_namespaces=True, declared_only=False
        )
        self.importer = Embedded(imports, self, Pool(pool.parse("198.19.0.0/16")))

    # --- what stands for the publication -------------------------------------------------------

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> None:
        self.exporter.apply(kind, changes)

    def synced(self, _: ObjectKind) -> None:
        raise AssertionError("not used here")

    def trouble(self, _: ObjectKind | None, __: str | None) -> None:
        raise AssertionError("not used here")

    def refused(self, what: str, reason: str | None) -> None:
        self.refusals.pop(what, None)
        if reason is not None:
            self.refusals[what] = reason

    # --- what a test does ----------------------------------------------------------------------

    def put(self, *found: objects.KubernetesObject) -> None:
        for each in found:
            self.importer.apply(objects.ref(each).kind, [Upsert(each)])

    def drop(self, kind: ObjectKind, name: str) -> None:
        namespace = "" if kind is ObjectKind.NAMESPACE else SPACE
        self.importer.apply(kind, [Removal(Ref(kind, namespace, name))])

    def told(self, cluster: str, **changes: object) -> None:
        self.importer.told(cluster, NAME, export(cluster, **changes))

    def gone(self, cluster: str) -> None:
        self.importer.told(cluster, NAME, None)

    def local(self) -> local.LocalService:
        return local.decode(LOCAL, self.exporter.wanted()[LOCAL])

    def status(self) -> ImportStatus:
        (found,) = self.importer.statuses()
        return found


def test_what_another_cluster_exports_is_a_global_service_here_that_is_not_shared() -> None:
    world = World()
    world.told("rome")
    found = world.local()
    assert (found.is_global, found.shared, found.headless) == (True, False, False)
    assert [(each.port, each.name) for each in found.frontends] == [(80, "http")]
    assert found.frontends[0].address.startswith("198.19.")
    assert HERE not in world.exporter.wanted(), "there is nothing of ours in it"
    status = world.status()
    assert status.clusters == ("rome",)
    assert status.addresses == (found.frontends[0].address,)
    assert status.derived == DERIVED
    world.gone("rome")
    assert world.exporter.wanted() == {}
    assert world.importer.statuses() == ()


def test_what_is_exported_here_is_published_under_the_derived_name() -> None:
    world = World()
    world.put(service(), slice_of("cart", "10.7.0.44"), own_export())
    assert b'"10.7.0.44"' in world.exporter.wanted()[HERE]
    assert world.local().shared
    assert world.status().export == "Valid"
    world.put(slice_of("cart", "10.7.0.45"))
    assert b'"10.7.0.45"' in world.exporter.wanted()[HERE]
    assert b'"10.7.0.44"' not in world.exporter.wanted()[HERE]
    world.drop(ObjectKind.SERVICE_EXPORT, "cart")
    assert HERE not in world.exporter.wanted()
    assert LOCAL not in world.exporter.wanted()


def test_an_export_without_a_service_says_so() -> None:
    world = World()
    world.put(own_export())
    assert world.status().export == "NoService"
    assert LOCAL not in world.exporter.wanted()
    world.put(service())
    assert world.status().export == "Valid"


def test_the_older_export_elsewhere_decides_and_the_conflict_is_told() -> None:
    world = World()
    world.put(service(), slice_of("cart", "10.7.0.44"), own_export())
    world.told("rome", created="2020-01-01T00:00:00Z", type="Headless")
    assert world.local().headless
    assert world.local().frontends == ()
    assert world.status().conflict.startswith("type: paris of 2 clusters disagree")
    world.gone("rome")
    assert not world.local().headless
    assert world.status().conflict == ""


def test_a_namespace_that_takes_no_part_imports_nothing() -> None:
    world = World()
    world.told("rome")
    apart = objects.Meta(name=SPACE, annotations={"clustermesh.cilium.io/global": "false"})
    world.put(objects.Namespace(apart))
    assert world.exporter.wanted() == {}
    world.drop(ObjectKind.NAMESPACE, SPACE)
    assert LOCAL in world.exporter.wanted()


def test_a_service_that_has_the_derived_name_already_is_left_alone_and_the_import_refused() -> None:
    world = World()
    theirs = service(DERIVED, "10.107.0.77")
    world.put(theirs)
    before = world.exporter.wanted()
    world.told("rome")
    assert world.exporter.wanted() == before
    ((what, why),) = world.refusals.items()
    assert what == f"ServiceImport {SPACE}/cart"
    assert f"is that of Service {SPACE}/{DERIVED}, which is not ours" in why
    assert world.status().problem == why
    world.drop(ObjectKind.SERVICE, DERIVED)
    assert world.refusals == {}
    assert world.local().is_global
    world.put(theirs)
    assert not world.local().is_global
    assert world.refusals


def test_two_names_of_a_range_never_share_an_address_and_keep_theirs() -> None:
    addresses = Pool(pool.parse("192.0.2.0/28"))
    names = [("shop", f"s{number}") for number in range(14)]
    first = {name: addresses.take(name, ("IPv4",)) for name in names}
    assert len(set(first.values())) == 14
    assert addresses.take(("shop", "one too many"), ("IPv4",)) == ()
    addresses.release(names[3])
    assert {name: addresses.take(name, ("IPv4",)) for name in names[4:]} == {
        name: first[name] for name in names[4:]
    }


def test_a_family_without_a_range_is_refused_with_the_setting() -> None:
    world = World()
    world.told("rome", ip_families=("IPv6",))
    assert "--clusterset-cidrs" in world.refusals[f"ServiceImport {SPACE}/cart"]
    assert world.local().frontends == ()


Step = tuple[str, int]
steps = st.lists(st.tuples(st.sampled_from(["own", "svc", "slice", "a", "b"]), st.integers(0, 3)))


def play(world: World, step: Step) -> None:
    """Each subject in one of four states; 0: not there."""
    what, state = step
    kinds = {
        "own": ObjectKind.SERVICE_EXPORT,
        "svc": ObjectKind.SERVICE,
        "slice": ObjectKind.ENDPOINT_SLICE,
    }
    match what:
        case "own" | "svc" if not state:
            world.drop(kinds[what], "cart")
        case "slice" if not state:
            world.drop(kinds[what], "cart-a")
        case "own":
            world.put(own_export(created=f"2026-01-0{state}T00:00:00Z"))
        case "svc":
            world.put(service(ip="None" if state == 3 else f"10.107.0.{state}"))
        case "slice":
            world.put(slice_of("cart", f"10.7.0.{state}"))
        case cluster if not state:
            world.gone(cluster)
        case cluster:
            kind = "Headless" if state == 2 else "ClusterSetIP"
            world.told(cluster, created=f"2026-01-0{state}T12:00:00Z", type=kind)


@given(steps)
@settings(max_examples=150, deadline=None)
def test_what_is_published_depends_on_present_facts_alone(found: list[Step]) -> None:
    walked = World()
    for step in found:
        play(walked, step)
    present = list(dict(found).items())
    random.Random(len(found)).shuffle(present)
    jumped = World()
    for step in present:
        play(jumped, step)
    assert walked.exporter.wanted() == jumped.exporter.wanted()
    assert walked.importer.statuses() == jumped.importer.statuses()


def test_telling_the_same_again_changes_nothing() -> None:
    world = World()
    world.put(service(), slice_of("cart", "10.7.0.44"), own_export())
    told: list[object] = []
    inner, world.exporter.apply = world.exporter.apply, lambda *args: told.append(args)  # type: ignore[method-assign]
    world.told("paris2")
    told.clear()
    world.told("paris2")
    assert told == []
    world.exporter.apply = inner  # type: ignore[method-assign]
    assert msgspec.json.encode(world.importer.statuses())
