"""The Kubernetes source against an API server: what exists, what changes, what goes wrong."""

from pathlib import Path

import msgspec

from clustermesh.sources.objects import ObjectKind as Kind
from clustermesh.sources.objects import Ref
from tests.support.kube import manifests as make
from tests.support.kube.follow import QUICK, following
from tests.support.kube.kubeserver import READER, READER_TOKEN, Opens, running
from tests.support.kube.proxy import wire_to
from tests.support.kube.sink import RecordingSink

BRIEF = msgspec.structs.replace(QUICK, watch_lifetime=4.0)
LISTING = msgspec.structs.replace(QUICK, watch_list=False, page_limit=3)


def service_names(sink: RecordingSink) -> set[str]:
    """Without the one that every real cluster has."""
    return sink.names(Kind.SERVICE, "default") - {"kubernetes"}


def slice_names(sink: RecordingSink) -> set[str]:
    return sink.names(Kind.ENDPOINT_SLICE, "default") - {"kubernetes"}


async def test_what_exists_is_told_and_then_what_changes(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(make.service("front", "10.96.1.1"), make.namespace("web", zone="a"))
        async with following(kube.kubeconfig()) as sink:
            await sink.until(lambda: sink.complete)
            assert service_names(sink) == {"front"}
            await kube.admin.apply(make.service("back", "10.96.1.2"))
            await kube.admin.apply(make.endpoint_slice("back-1", "back", "10.1.0.1", "10.1.0.2"))
            await sink.until(lambda: slice_names(sink) == {"back-1"})
            await sink.until(lambda: service_names(sink) == {"front", "back"})
            found = sink.objects[Ref(Kind.ENDPOINT_SLICE, "default", "back-1")]
            assert [each.addresses for each in found.endpoints] == [("10.1.0.1",), ("10.1.0.2",)]
            assert sink.objects[Ref(Kind.NAMESPACE, "", "web")].metadata.annotations == {
                "zone": "a"
            }
            await kube.admin.delete(make.service("front"))
            await sink.until(lambda: service_names(sink) == {"back"})
            assert not sink.troubles


async def test_pages_and_streams_tell_the_same(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        for number in range(10):
            await kube.admin.apply(make.service(f"s{number}", f"10.96.1.{number + 1}"))
        async with following(kube.kubeconfig(), LISTING) as paged:
            await paged.until(lambda: paged.complete)
        async with following(kube.kubeconfig()) as streamed:
            await streamed.until(lambda: streamed.complete)
        assert len(service_names(paged)) == 10
        assert paged.objects == streamed.objects


async def test_what_vanished_while_we_could_not_see_is_removed(
    opens: Opens, tmp_path: Path
) -> None:
    async with running(opens, tmp_path) as kube, wire_to(kube.server.url) as wire:
        await kube.admin.apply(make.service("stays"), make.service("goes"))
        async with following(kube.kubeconfig(url=wire.url)) as sink:
            await sink.until(lambda: sink.complete)
            sink.forget()
            await wire.cut()
            await sink.until(lambda: Kind.SERVICE in sink.troubles)
            await kube.admin.delete(make.service("goes"))
            await kube.admin.apply(make.service("comes"))
            await kube.server.lose_history()
            assert service_names(sink) == {"stays", "goes"}
            await wire.mend()
            await sink.until(lambda: service_names(sink) == {"stays", "comes"})
            await sink.until(lambda: not sink.troubles)
            assert sink.removed == [Ref(Kind.SERVICE, "default", "goes")]


async def test_an_api_server_that_restarts_costs_nothing(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(
            make.service("front"), make.endpoint_slice("f-1", "front", "10.1.0.1")
        )
        async with following(kube.kubeconfig()) as sink:
            await sink.until(lambda: sink.complete)
            known = dict(sink.objects)
            await kube.server.stop()
            await sink.until(lambda: sink.kinds - {Kind.SERVICE_EXPORT} <= sink.troubles.keys())
            assert sink.objects == known
            await kube.server.start()
            await sink.until(lambda: not sink.troubles)
            assert sink.removed == []
            await kube.admin.apply(make.service("later"))
            await sink.until(lambda: "later" in service_names(sink))


async def test_a_reader_that_fell_behind_catches_up(opens: Opens, tmp_path: Path) -> None:
    """More is told than sockets hold. A real server says nothing more to a reader that is so slow,
    and does not end the watch either: what is missing comes with the next one.
    """
    large = {"metadata": {"annotations": {"large": "x" * 60_000}}}
    async with running(opens, tmp_path) as kube, wire_to(kube.server.url) as wire:
        await kube.admin.apply(make.service("busy"), make.service("goes"))
        async with following(kube.kubeconfig(url=wire.url), BRIEF) as sink:
            await sink.until(lambda: sink.complete)
            sink.forget()
            wire.hold()
            for number in range(200):
                large["metadata"]["annotations"]["number"] = str(number)
                await kube.admin.patch(make.service("busy"), large)
            await kube.admin.delete(make.service("goes"))
            await kube.admin.apply(make.service("comes"))
            wire.release()
            await sink.until(lambda: service_names(sink) == {"busy", "comes"})
            last = sink.objects[Ref(Kind.SERVICE, "default", "busy")].metadata.annotations
            assert last is not None
            assert last["number"] == "199"
            assert sink.removed == [Ref(Kind.SERVICE, "default", "goes")]
            await sink.until(lambda: not sink.troubles)


async def test_lost_history_is_read_again(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(make.service("front"))
        async with following(kube.kubeconfig(), LISTING) as sink:
            await sink.until(lambda: sink.complete)
            for number in range(3):
                await kube.admin.apply(make.namespace(f"n{number}"))
            await kube.server.lose_history()
            await kube.admin.apply(make.service("later"))
            await sink.until(lambda: service_names(sink) == {"front", "later"})
            await sink.until(lambda: not sink.troubles)
            assert sink.removed == []


async def test_slices_that_mirror_other_clusters_are_not_told(opens: Opens, tmp_path: Path) -> None:
    mirrored = {"endpointslice.kubernetes.io/managed-by": "endpointslice-mesh-controller.cilium.io"}
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(
            make.service("front"),
            make.endpoint_slice("ours", "front", "10.1.0.1"),
            make.endpoint_slice("theirs", "front", "10.2.0.1", **mirrored),
        )
        async with following(kube.kubeconfig()) as sink:
            await sink.until(lambda: sink.complete)
            assert slice_names(sink) == {"ours"}
            await kube.admin.apply(make.endpoint_slice("ours", "front", "10.1.0.1", **mirrored))
            await sink.until(lambda: slice_names(sink) == set())


async def test_pods_that_are_done_have_no_addresses(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(
            make.pod("done", "10.1.0.1", phase="Succeeded"), make.pod("runs", "10.1.0.2")
        )
        async with following(kube.kubeconfig()) as sink:
            await sink.until(lambda: sink.complete)
            assert sink.names(Kind.POD) == {"runs"}
            await kube.admin.apply(make.pod("runs", "10.1.0.2", phase="Failed"))
            await sink.until(lambda: sink.removed == [Ref(Kind.POD, "default", "runs")])


ALLOWED = [
    ("", "namespaces", "list watch"),
    ("", "services", "list watch"),
    ("", "nodes", "list watch"),
    ("", "pods", "list watch"),
]


async def test_a_kind_that_is_forbidden_says_what_to_grant(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(make.service("front"), make.pod("front-0", "10.1.0.1"))
        await kube.admin.apply(*make.cluster_role("reader", READER, *ALLOWED))
        async with following(kube.kubeconfig("reader", token=READER_TOKEN)) as sink:
            await sink.until(lambda: sink.names(Kind.POD) == {"front-0"})
            await sink.until(lambda: Kind.ENDPOINT_SLICE in sink.troubles)
            assert service_names(sink) == set(), "not without their endpoints"
            said = sink.troubles[Kind.ENDPOINT_SLICE]
            assert "may not list and watch endpointslices.discovery.k8s.io" in said
            assert "grant both" in said
            assert "\n" not in said
            slices = ("discovery.k8s.io", "endpointslices", "list watch")
            await kube.admin.apply(*make.cluster_role("reader", READER, *ALLOWED, slices))
            await sink.until(lambda: sink.complete and not sink.troubles)
            assert service_names(sink) == {"front"}


async def test_the_flavour_is_found_out(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        async with following(kube.kubeconfig()) as sink:
            await sink.until(lambda: sink.complete)
            assert {Kind.NODE, Kind.POD} < sink.kinds
            assert Kind.CILIUM_NODE not in sink.kinds
        await kube.admin.apply(*make.CILIUM)
        await kube.admin.apply(
            make.cilium_node("n1", "192.168.0.1", "10.1.0.0/24"),
            make.cilium_identity(70001, app="front"),
            make.cilium_endpoint("front-1", "10.1.0.9", 70001),
        )
        async with following(kube.kubeconfig()) as sink:
            await sink.until(lambda: sink.complete)
            assert Kind.POD not in sink.kinds
            assert sink.names(Kind.CILIUM_NODE) == {"n1"}
            assert sink.names(Kind.CILIUM_IDENTITY) == {"70001"}
            assert sink.names(Kind.CILIUM_ENDPOINT) == {"front-1"}


async def test_a_kind_may_come_and_go(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube, following(kube.kubeconfig()) as sink:
        await sink.until(lambda: sink.complete)
        assert not sink.troubles
        await kube.admin.apply(make.SERVICE_EXPORTS, make.service_export("front"))
        await sink.until(lambda: sink.names(Kind.SERVICE_EXPORT) == {"front"})
        await kube.admin.delete(make.SERVICE_EXPORTS)
        await sink.until(lambda: sink.names(Kind.SERVICE_EXPORT) == set())
        await sink.until(lambda: Kind.SERVICE_EXPORT not in sink.troubles)


async def test_one_bad_object_stops_no_other(opens: Opens, tmp_path: Path) -> None:
    bad = make.cilium_node("bad", "192.168.0.9", "10.9.0.0/24")
    bad["spec"]["addresses"] = "none"
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(*make.CILIUM)
        await kube.admin.apply(bad, make.cilium_node("good", "192.168.0.1", "10.1.0.0/24"))
        async with following(kube.kubeconfig(), LISTING) as sink:
            await sink.until(lambda: sink.complete)
            assert sink.names(Kind.CILIUM_NODE) == {"good"}
            assert sink.refusals == {
                "CiliumNode bad": "spec.addresses: expected `array`, got `str`"
            }
            good = make.cilium_node("good", "192.168.0.1", "10.1.0.0/24")
            await kube.admin.apply(good | {"spec": {"encryption": {"key": "many"}}})
            await sink.until(lambda: "CiliumNode good" in sink.refusals)
            assert sink.names(Kind.CILIUM_NODE) == {"good"}, "what was known stays"
            await kube.admin.apply(good, make.cilium_node("bad", "192.168.0.9", "10.9.0.0/24"))
            await sink.until(lambda: sink.names(Kind.CILIUM_NODE) == {"good", "bad"})
            await sink.until(lambda: not sink.refusals)


async def test_a_large_object_arrives_whole(opens: Opens, tmp_path: Path) -> None:
    cidrs = [f"10.{a}.{b}.0/28" for a in range(200) for b in range(200)]
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(*make.CILIUM)
        async with following(kube.kubeconfig()) as sink:
            await sink.until(lambda: sink.complete)
            large = make.cilium_node("large", "192.168.0.1", "10.1.0.0/24")
            large["spec"]["ipam"]["podCIDRs"] = cidrs
            await kube.admin.apply(large)
            await sink.until(lambda: sink.names(Kind.CILIUM_NODE) == {"large"})
            found = sink.objects[Ref(Kind.CILIUM_NODE, "", "large")]
            assert list(found.spec.ipam.pod_cidrs) == cidrs
