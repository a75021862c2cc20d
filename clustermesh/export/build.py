"""What each object wants in etcd: keys and values, and what of it was refused."""

from collections.abc import Iterator
from typing import Protocol

import msgspec

from clustermesh import keys, local
from clustermesh.export import (
    annotations,
    endpoint_slices,
    endpoints,
    labels,
    local_services,
    mcs,
    nodes,
    services,
)
from clustermesh.export.picture import Picture, namespace_of
from clustermesh.export.settings import ExportSettings, SliceExport
from clustermesh.keys import Kind, Layout
from clustermesh.model import Fact
from clustermesh.sources import objects
from clustermesh.sources.objects import KubernetesObject, Ref

ETCD_TAKES = 3 << 19
"""Bytes of a request that an etcd takes unless it is told otherwise (``--max-request-bytes``)."""
AROUND = 512
"""Bytes of a request around a value, its key included."""


class Numbers(Protocol):
    """Who numbers identities in flavour core."""

    def number(self, label_text: str) -> int | None:
        """The number of these labels; None: not decided yet, ``Exporter.decided`` will follow."""
        ...


class Built(msgspec.Struct):
    """What an object wants; ``notes`` are sentences for the operator.

    ``undecided`` are labels without a number, for which it waits.
    """

    entries: dict[str, bytes]
    notes: list[str]
    undecided: str = ""


class Builder:
    """Works out one object at a time from the picture; it changes nothing."""

    def __init__(self, settings: ExportSettings, picture: Picture, numbers: Numbers | None) -> None:
        """``numbers`` is needed for flavour core."""
        self._settings = settings
        self._picture = picture
        self._numbers = numbers
        self._identities = keys.prefix(Kind.IDENTITIES, Layout.STATE, settings.cluster)

    def build(self, name: Ref) -> Built:
        """What the object wants now; nothing when it is gone or not exported."""
        built = Built({}, [])
        for key, value in self._entries(name, built):
            if len(value) > ETCD_TAKES - AROUND:
                built.notes.append(
                    f"{key}: {len(value)} bytes, and an etcd takes {ETCD_TAKES} a request unless "
                    "its --max-request-bytes says more: what it has of the key stays"
                )
            built.entries[key] = value
        return built

    def identity_key(self, number: str) -> str:
        """Where an identity is; the name of a CiliumIdentity is taken as it stands."""
        return self._identities + number

    def _entries(self, name: Ref, built: Built) -> Iterator[tuple[str, bytes]]:
        object_ = self._picture.objects.get(name)
        match object_:
            case None:
                return
            case objects.CiliumNode():
                yield self._fact(nodes.from_cilium(object_, self._settings))
            case objects.Node():
                built.notes.extend(nodes.mistakes(object_))
                yield self._fact(nodes.from_core(object_, self._settings))
            case objects.Service():
                yield from self._service(object_, built)
            case _ if self._exports(object_):
                yield from self._namespaced(object_, built)
            case _:
                return

    def _namespaced(self, object_: KubernetesObject, built: Built) -> Iterator[tuple[str, bytes]]:
        match object_:
            case objects.CiliumIdentity():
                yield from self._identity(object_, built)
            case objects.CiliumEndpoint():
                built.notes.extend(endpoints.bad_addresses(object_.status.networking))
                yield from map(self._fact, endpoints.from_cilium(object_))
            case objects.CiliumEndpointSlice():
                for endpoint in object_.endpoints:
                    built.notes.extend(endpoints.bad_addresses(endpoint.networking))
                yield from map(self._fact, endpoints.from_cilium_slice(object_))
            case objects.Pod():
                built.notes.extend(endpoints.bad_pod_addresses(object_))
                yield from self._pod(object_, built)
            case objects.EndpointSlice():
                yield from self._slice(object_)
            case _:
                return

    def _identity(
        self, identity: objects.CiliumIdentity, built: Built
    ) -> Iterator[tuple[str, bytes]]:
        text = labels.of_security_labels(identity.security_labels)
        if text:
            yield self.identity_key(identity.metadata.name), text.encode()
        else:
            built.notes.append("security-labels: empty, expected at least one")

    def _pod(self, pod: objects.Pod, built: Built) -> Iterator[tuple[str, bytes]]:
        if not endpoints.pod_addresses(pod) or self._numbers is None:
            return
        namespace = self._picture.namespace(pod.metadata.namespace)
        text = labels.of_pod(
            pod.metadata.labels or {},
            (namespace.metadata.labels if namespace else None) or {},
            namespace=pod.metadata.namespace,
            service_account=endpoints.service_account(pod),
            cluster=self._settings.cluster,
        )
        number = self._numbers.number(text)
        if number is None:
            built.undecided = text
            return
        yield self.identity_key(str(number)), text.encode()
        yield from map(self._fact, endpoints.from_pod(pod, number, self._host_of(pod)))

    def _service(self, service: objects.Service, built: Built) -> Iterator[tuple[str, bytes]]:
        if not services.is_ours(service):
            return
        meta = service.metadata
        exports = self._exports(service)
        slices = self._picture.slices(meta.namespace, meta.name)
        built.notes.extend(services.mistakes(service, slices))
        own = local_services.to_local_service(service, slices, namespace_exports=exports)
        yield local.key_of(own), local.encode(own)
        if own.shared and slices and self._settings.slices is not SliceExport.SLICES_ONLY:
            cluster, cluster_id = self._settings.cluster, self._settings.cluster_id
            yield self._fact(
                services.to_cluster_service(service, slices, cluster=cluster, cluster_id=cluster_id)
            )
        if self._settings.mcs_api and exports:
            yield from self._service_export(service, built)

    def _service_export(
        self, service: objects.Service, built: Built
    ) -> Iterator[tuple[str, bytes]]:
        meta = service.metadata
        export = self._picture.service_export(meta.namespace, meta.name)
        if export is None:
            return
        if not mcs.created(export):
            told = export.metadata.creation_timestamp
            built.notes.append(
                f"ServiceExport: metadata.creationTimestamp: {told!r}, "
                f"expected a time such as 2026-11-20T10:00:00Z"
            )
            return
        yield self._fact(mcs.to_service_export(export, service, cluster=self._settings.cluster))

    def _slice(self, slice_: objects.EndpointSlice) -> Iterator[tuple[str, bytes]]:
        if self._settings.slices is SliceExport.SERVICES_ONLY:
            return
        service = self._picture.service(slice_.metadata.namespace, services.service_of(slice_))
        if service is None or not services.is_exported(service, namespace_exports=True):
            return
        fact = endpoint_slices.to_endpoint_slice(
            slice_, cluster=self._settings.cluster, cluster_id=self._settings.cluster_id
        )
        if fact is not None:
            yield self._fact(fact)

    def _exports(self, object_: KubernetesObject) -> bool:
        name = namespace_of(object_)
        default = self._settings.global_namespaces
        return not name or annotations.exports(self._picture.namespace(name), default=default)

    def _host_of(self, pod: objects.Pod) -> str:
        """The underlay address of the pod's node: what the pod says, else what the node says."""
        if told := endpoints.host_address(pod):
            return told
        node = self._picture.node(pod.spec.node_name)
        if node is None:
            return ""
        fact = nodes.from_core(node, self._settings)
        return fact.underlay(4) or fact.underlay(6)

    def _fact(self, fact: Fact) -> tuple[str, bytes]:
        return keys.key_of(self._settings.cluster, fact), keys.encode(fact)
