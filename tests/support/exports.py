"""A shop's service as objects of Kubernetes, and what the exporter publishes of a small world."""

from typing import Any

from clustermesh import gojson, keys, local, model
from clustermesh.export import Exporter, ExportSettings, Flavour
from clustermesh.identities import Allocator
from clustermesh.sources import objects
from clustermesh.sources.objects import KubernetesObject, ObjectKind
from tests.support.manifests import feed

PARIS = ExportSettings(cluster="paris", cluster_id=7)
CORE = ExportSettings(cluster="paris", cluster_id=7, flavour=Flavour.CORE)
GLOBAL = {"service.cilium.io/global": "true"}
SERVICE_KEY = "cilium/state/services/v1/paris/shop/cart"


def made(kind: ObjectKind, name: str, namespace: str = "", **rest: Any) -> KubernetesObject:
    meta = {"name": name, "namespace": namespace, **rest.pop("metadata", {})}
    return objects.convert(kind, {"metadata": meta, **rest})


def cart(annotations: dict[str, str] | None = None, **spec: Any) -> KubernetesObject:
    more = spec.pop("metadata", {})
    return made(
        ObjectKind.SERVICE,
        spec.pop("name", "cart"),
        "shop",
        metadata={"annotations": GLOBAL if annotations is None else annotations, **more},
        spec={"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}], **spec},
    )


def cart_slice(*endpoints: dict[str, Any], name: str = "cart-a", **rest: Any) -> KubernetesObject:
    labels = {"kubernetes.io/service-name": "cart", **rest.pop("labels", {})}
    return made(
        ObjectKind.ENDPOINT_SLICE,
        name,
        "shop",
        metadata={"labels": labels},
        **{
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": list(endpoints) or [{"addresses": ["10.7.0.44"]}],
            **rest,
        },
    )


def exported(*world: KubernetesObject, settings: ExportSettings = PARIS) -> dict[str, bytes]:
    numbers = Allocator(keys.identity_range(7)) if settings.flavour is Flavour.CORE else None
    exporter = Exporter(settings, numbers)
    feed(exporter, world)
    return exporter.wanted()


def service(*world: KubernetesObject) -> model.ClusterService | None:
    value = exported(*world).get(SERVICE_KEY)
    return None if value is None else gojson.Reader(model.ClusterService).decode(value)


def own(*world: KubernetesObject, name: str = "cart") -> local.LocalService:
    key = f"{local.SERVICES_PREFIX}shop/{name}"
    return local.decode(key, exported(*world)[key])
