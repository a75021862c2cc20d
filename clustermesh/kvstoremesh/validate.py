"""``--validate``: every fault that can be found without writing anything, one line each."""

import asyncio
import sys
from collections.abc import AsyncIterator

import msgspec

from clustermesh import keys
from clustermesh.apiserver import start, tlscheck
from clustermesh.kvstoremesh.settings import Settings
from clustermesh.process import Fault
from clustermesh.remotes import directory, handshake
from clustermesh.remotes.directory import RemoteFile
from clustermesh.remotes.handshake import Ids
from kvstore.client import StoreError
from kvstore.config import EtcdConfig
from kvstore.etcd import open_etcd


async def validate(settings: Settings) -> None:
    """Write what is wrong to stderr and raise ``Fault``, or say that all is well."""
    faults = [fault async for fault in _faults(settings)]
    for line in faults:
        sys.stderr.write(f"{line}\n")
    if faults:
        raise Fault(f"not valid: {len(faults)} faults")
    sys.stdout.write("valid\n")


async def _faults(settings: Settings) -> AsyncIterator[str]:
    try:
        config = start.etcd_config(settings)
    except Fault as fault:
        yield str(fault)
    else:
        if fault_ := await _unreachable(config, settings):
            yield f"--etcd-config {settings.etcd_config}: {fault_}"
    files, problem = directory.scan(settings.clustermesh_config, own=settings.cluster_name)
    if problem:
        yield f"--clustermesh-config: {problem}"
    ids = Ids(settings)
    for file in files.values():
        if fault_ := await _remote(file, ids, settings):
            yield fault_


async def _remote(file: RemoteFile, ids: Ids, settings: Settings) -> str:
    """What is wrong with a remote cluster, empty when nothing is."""
    if file.config is None:
        return file.problem
    if fault := await _unreachable(file.config, settings):
        return f"{file.path}: {fault}"
    try:
        async with open_etcd(file.config) as store, asyncio.timeout(settings.handshake_timeout):
            entry = await store.get(keys.cluster_config(file.cluster))
        if entry is None:
            return f"{file.path}: its etcd has no {keys.cluster_config(file.cluster)}"
        config = handshake.judge(file.cluster, entry.value, settings)
        ids.reserve(file.cluster, config.id)
    except (StoreError, TimeoutError, handshake.Refused) as error:
        return f"{file.path}: {str(error) or 'no answer in time'}"
    return ""


async def _unreachable(config: EtcdConfig, settings: Settings) -> str:
    """Why an etcd cannot be used, empty when it can."""
    try:
        tlscheck.context(config)
        if sentence := await tlscheck.diagnose(config, timeout=config.dial_timeout):
            return sentence
        quick = msgspec.structs.replace(config, request_timeout=config.dial_timeout)
        async with open_etcd(quick) as store, asyncio.timeout(min(10.0, settings.start_timeout)):
            await store.connected(beyond=0)
    except TimeoutError:
        return "no endpoint answers"
    except (StoreError, ValueError) as error:
        return str(error)
    return ""
