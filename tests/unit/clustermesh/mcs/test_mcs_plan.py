"""Requests to an API server: what is there becomes what should be, and then nothing is asked."""

import itertools
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from clustermesh.mcs.derive import Facts, Wanted, wanted
from clustermesh.mcs.plan import Step, There, Versions, plan
from clustermesh.sources import objects
from tests.support.mcs import SPACE, export, own_export, service, slice_of

VERSIONS = Versions("v1alpha1", "v1beta1")
NOW = "2026-11-21T00:00:00Z"
EXPORT_STATUS = f"/apis/multicluster.x-k8s.io/v1beta1/namespaces/{SPACE}/serviceexports/cart/status"


class Server:
    """As much of an API server as the steps need."""

    def __init__(self, own: objects.ServiceExport | None = None) -> None:
        self.objects: dict[str, Any] = {}
        self.own = own
        self.asked: list[Step] = []
        self._numbers = itertools.count(1)

    def there(self) -> There:
        found = {
            kind: [
                msgspec.convert(body, type_) for path, body in self.objects.items() if word in path
            ]
            for kind, word, type_ in (
                ("imports", "/serviceimports/", objects.ServiceImport),
                ("services", "/services/", objects.Service),
                ("slices", "/endpointslices/", objects.EndpointSlice),
            )
        }
        return There(
            service_import=next(iter(found["imports"]), None),
            derived=next(iter(found["services"]), None),
            slices=found["slices"],
            export=self.own,
        )

    def settle(self, should: Wanted) -> None:
        """Ask until there is nothing to ask; that must not take long."""
        for _ in range(6):
            steps = list(plan(should, self.there(), VERSIONS, now=NOW))
            if not steps:
                return
            for step in steps:
                self._do(step)
        raise AssertionError(f"never done: {steps}")

    def _do(self, step: Step) -> None:
        self.asked.append(step)
        path = step.path
        match step.method:
            case "POST":
                assert step.body is not None
                name = step.body["metadata"]["name"]
                assert f"{path}/{name}" not in self.objects
                body = msgspec.json.decode(msgspec.json.encode(step.body))
                body["metadata"]["uid"] = f"uid-{next(self._numbers)}"
                if path.endswith("/services") and "clusterIP" not in body["spec"]:
                    body["spec"] |= {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"]}
                self.objects[f"{path}/{name}"] = body
            case "DELETE":
                del self.objects[path]
            case _ if path == EXPORT_STATUS:
                assert step.body is not None
                assert self.own is not None
                status = msgspec.convert(step.body["status"], objects.ServiceExportStatus)
                self.own = msgspec.structs.replace(self.own, status=status)
            case _:
                self.objects[path.removesuffix("/status")] = merged(
                    self.objects[path.removesuffix("/status")], step.body
                )


def merged(there: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return msgspec.json.decode(msgspec.json.encode(patch))
    found = dict(there) if isinstance(there, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def facts(**changes: object) -> Facts:
    fields: dict[str, object] = {"cluster": "paris", "namespace": SPACE, "name": "cart"}
    return Facts(**(fields | changes))  # type: ignore[arg-type]  # by name


def test_an_import_gets_its_service_and_the_services_address() -> None:
    server = Server()
    server.settle(wanted(facts(exports={"rome": export("rome", labels={"a": "b"})})))
    there = server.there()
    assert there.service_import is not None
    assert there.derived is not None
    assert there.service_import.spec.ips == ("10.96.0.1",)
    assert [each.cluster for each in there.service_import.status.clusters] == ["rome"]
    annotations = there.derived.metadata.annotations or {}
    assert annotations["service.cilium.io/global"] == "true"
    assert annotations["service.cilium.io/shared"] == "false"
    assert there.derived.metadata.labels == {
        "a": "b",
        "multicluster.kubernetes.io/service-name": "cart",
        "multicluster.kubernetes.io/source-cluster": "paris",
    }
    body = next(body for path, body in server.objects.items() if "/services/" in path)
    assert body["metadata"]["ownerReferences"][0]["uid"] == there.service_import.metadata.uid


def test_an_export_gets_conditions_whose_time_is_that_of_the_last_change() -> None:
    foreign = objects.Condition("Audited", "True", "Yes", "by hand", "2020-01-01T00:00:00Z")
    old = objects.Condition("Valid", "True", "Valid", "as it was", "2021-01-01T00:00:00Z")
    own = msgspec.structs.replace(own_export(), status=objects.ServiceExportStatus((old, foreign)))
    server = Server(own)
    server.settle(wanted(facts(own=own, service=service(), slices=[slice_of("cart", "10.7.0.1")])))
    assert server.own is not None
    found = {each.type: each for each in server.own.status.conditions}
    assert found["Audited"] == foreign
    assert found["Valid"].last_transition_time == "2021-01-01T00:00:00Z"
    assert found["Conflict"].status == "False"
    assert found["Conflict"].last_transition_time == NOW


def test_turning_headless_makes_a_new_service() -> None:
    server = Server()
    server.settle(wanted(facts(exports={"rome": export("rome")})))
    server.asked.clear()
    server.settle(wanted(facts(exports={"rome": export("rome", type="Headless")})))
    there = server.there()
    assert there.derived is not None
    assert there.derived.spec.cluster_ip == "None"
    assert there.service_import is not None
    assert there.service_import.spec.ips == ()
    assert [step.method for step in server.asked if "/services" in step.path] == ["DELETE", "POST"]


def test_an_import_of_somebody_else_is_not_deleted() -> None:
    theirs = objects.ServiceImport(objects.Meta(name="cart", namespace=SPACE))
    assert list(plan(Wanted(), There(service_import=theirs), VERSIONS, now=NOW)) == []


def test_slices_of_another_family_and_of_names_are_not_copied() -> None:
    named = msgspec.structs.replace(slice_of("cart", "x.test", name="cart-n"), address_type="FQDN")
    six = msgspec.structs.replace(slice_of("cart", "fd00::1", name="cart-6"), address_type="IPv6")
    four = slice_of("cart", "10.7.0.1", name="cart-4")
    own = objects.Service(
        service().metadata, msgspec.structs.replace(service().spec, ip_families=("IPv4",))
    )
    should = wanted(facts(own=own_export(), service=own, slices=[named, six, four]))
    (copy,) = should.slices
    assert copy.metadata.name.endswith("-4")
    labels = copy.metadata.labels or {}
    assert labels["service.cilium.io/local-endpointslice"] == "cart-4"
    assert (
        labels["endpointslice.kubernetes.io/managed-by"]
        == "endpointslice-local-mcsapi-controller.cilium.io"
    )


def test_two_slices_whose_names_end_alike_have_two_copies() -> None:
    slices = [slice_of("cart", "10.7.0.1", name=name) for name in ("cart-a", "a", "cart")]
    should = wanted(facts(own=own_export(), service=service(), slices=slices))
    assert len({each.metadata.name for each in should.slices}) == 3


states = st.builds(
    facts,
    exports=st.dictionaries(
        st.sampled_from(["rome", "oslo"]),
        st.builds(
            export,
            st.just("rome"),
            type=st.sampled_from(["ClusterSetIP", "Headless"]),
            labels=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")),
            session_affinity=st.sampled_from(["None", "ClientIP"]),
        ),
    ).map(
        lambda found: {
            name: msgspec.structs.replace(each, cluster=name) for name, each in found.items()
        }
    ),
    own=st.one_of(st.none(), st.just(own_export())),
    service=st.one_of(st.none(), st.just(service())),
    slices=st.lists(
        st.sampled_from(["cart-a", "cart-b", "b"]).map(
            lambda name: slice_of("cart", "10.7.0.1", name=name)
        ),
        unique_by=lambda each: each.metadata.name,
    ),
    meshed=st.booleans(),
)


@given(st.lists(states, min_size=1, max_size=4))
def test_from_any_state_to_any_other_in_few_steps(found: list[Facts]) -> None:
    server = Server()
    for each in found:
        server.own = each.own
        server.settle(wanted(each))
    fresh = Server(found[-1].own)
    fresh.settle(wanted(found[-1]))
    assert shapes(server) == shapes(fresh)


def shapes(server: Server) -> dict[str, Any]:
    """What there is, without what is different in each life."""
    found = {}
    for path, body in server.objects.items():
        meta = {
            key: value or {}
            for key, value in body["metadata"].items()
            if key in ("name", "labels", "annotations")
        }
        slim = {key: value for key, value in body.items() if key != "metadata"}
        found[path] = {**slim, "metadata": {"labels": {}, "annotations": {}, **meta}}
    return found
