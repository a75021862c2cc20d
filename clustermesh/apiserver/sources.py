"""Which source there is, chosen by the settings; each is imported only where it is used."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from clustermesh.apiserver.imports import Makes, Report, Unread
from clustermesh.apiserver.numbering import FileNumbers, Numbering
from clustermesh.apiserver.settings import Settings
from clustermesh.export import ExportSettings, Flavour, SliceExport
from clustermesh.keys import identity_range
from clustermesh.mcs import pool
from clustermesh.mcs.embedded import Embedded
from clustermesh.mcs.imports import Imports
from clustermesh.mcs.pool import Pool
from clustermesh.process import Fault
from clustermesh.sources.objects import ObjectKind
from clustermesh.sources.port import Source, SourceSink

IMPORTED = frozenset({ObjectKind.SERVICE_IMPORT})
NOTHING: frozenset[ObjectKind] = frozenset()
SIGNS_OF_CILIUM = frozenset({ObjectKind.CILIUM_NODE, ObjectKind.CILIUM_ENDPOINT})


class Supply(msgspec.Struct, frozen=True, kw_only=True):
    """A source, how its objects are exported, and how identities of flavour core are numbered.

    ``numbering`` is called once by who publishes, before the source runs: it may read a record, or
    take part in the election of who writes one. None where the objects carry numbers. ``imports``
    is None unless services of other clusters are imported.
    """

    name: str
    source: Source
    export: ExportSettings
    numbering: Callable[[], Numbering] | None = None
    imports: Makes | None = None


@asynccontextmanager
async def opened(settings: Settings, report: Report) -> AsyncIterator[Supply]:
    """The source that the settings name. Raises ``Fault``; waits while an API server is away."""
    if settings.source == "directory":
        yield await _directory(settings)
        return
    from clustermesh.mcs.kubernetes import Writer
    from clustermesh.sources.kubernetes.access import Credentials
    from clustermesh.sources.kubernetes.failures import CredentialsError
    from clustermesh.sources.kubernetes.resources import Flavour as Served
    from clustermesh.sources.kubernetes.settings import KubernetesSettings
    from clustermesh.sources.kubernetes.source import open_kubernetes

    choice = KubernetesSettings(
        kubeconfig=settings.kubeconfig,
        context=settings.kube_context,
        namespace=settings.kube_namespace,
        flavour=None if settings.flavour == "auto" else Served(settings.flavour),
    )
    credentials = Credentials(choice)
    try:
        await credentials.current()
    except CredentialsError as error:
        raise Fault(f"{error}; see --kubeconfig and --kube-context") from None
    async with open_kubernetes(choice, report, credentials) as source:
        export = exporting(settings, Flavour(source.flavour))
        wanted = source.only(export.kinds | (IMPORTED if settings.imports else NOTHING))
        numbers = identity_range(export.cluster_id, export.max_clusters)

        def writing(imports: Imports, inner: SourceSink, unread: Unread, report: Report) -> Writer:
            api, lease = wanted.elected("clustermesh-imports")
            return Writer(
                imports,
                inner,
                kinds=wanted.kinds,
                api=api,
                lease=lease,
                unread=unread,
                report=report,
            )

        yield Supply(
            name="kubernetes",
            source=wanted,
            export=export,
            numbering=_for_core(export, lambda: wanted.numbered(numbers)),
            imports=writing if settings.imports else None,
        )


async def _directory(settings: Settings) -> Supply:
    from clustermesh.sources.directory.source import DirectorySettings, DirectorySource
    from clustermesh.sources.directory.survey import kinds_in

    place = settings.manifests
    if place is None or not place.is_dir():
        raise Fault(f"--manifests: {place} is not a directory")
    if settings.flavour == "auto":
        kinds, _ = await asyncio.to_thread(kinds_in, place)
        flavour = Flavour.CILIUM if kinds & SIGNS_OF_CILIUM else Flavour.CORE
    else:
        flavour = Flavour(settings.flavour)
    export = exporting(settings, flavour)

    def embedding(imports: Imports, inner: SourceSink, _: Unread, __: Report) -> Embedded:
        return Embedded(imports, inner, Pool(pool.parse(settings.clusterset_cidrs)))

    return Supply(
        name=f"directory {place}",
        source=DirectorySource(DirectorySettings(path=place), export.kinds),
        export=export,
        numbering=_for_core(export, lambda: FileNumbers(settings.state_dir, export)),
        imports=embedding if settings.imports else None,
    )


def _for_core(
    export: ExportSettings, numbering: Callable[[], Numbering]
) -> Callable[[], Numbering] | None:
    return numbering if export.flavour is Flavour.CORE else None


def exporting(settings: Settings, flavour: Flavour) -> ExportSettings:
    """The settings of the export."""
    return ExportSettings(
        cluster=settings.cluster_name,
        cluster_id=settings.cluster_id,
        max_clusters=settings.max_connected_clusters,
        flavour=flavour,
        cilium_endpoint_slices=settings.cilium_endpoint_slices,
        mcs_api=settings.mcs_api,
        slices=SliceExport(settings.endpoint_slices.replace("services-only", "")),
        global_namespaces=settings.global_namespaces,
        first_address_is_overlay=settings.first_address_is_overlay,
    )
