"""The way from a configuration file to an etcd that is ours: what stops it is one sentence."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from clustermesh.apiserver import guard, tlscheck
from clustermesh.apiserver.settings import Settings
from clustermesh.logs import get_logger
from clustermesh.process import Fault
from kvstore.client import Denied, Unavailable
from kvstore.config import ConfigError, EtcdConfig
from kvstore.etcd import EtcdStore
from kvstore.users import User, ensure_auth

log = get_logger()


class Reaching(Protocol):
    """The settings that say how to reach the own etcd."""

    @property
    def etcd_config(self) -> Path: ...

    @property
    def etcd_qps(self) -> float: ...


def etcd_config(settings: Reaching) -> EtcdConfig:
    """How to reach the own etcd. Raises ``Fault`` naming file and field."""
    path: Path = settings.etcd_config
    try:
        config = EtcdConfig.load(path)
        tlscheck.context(config)
    except ConfigError as error:
        raise Fault(f"{path}: {error}") from None
    except OSError as error:
        raise Fault(
            f"cannot read --etcd-config {path}: {error.strerror}; it names the etcd client file"
        ) from None
    except ValueError as error:
        raise Fault(f"{path}: {error}") from None
    return msgspec.structs.replace(config, qps=settings.etcd_qps)


async def connect(store: EtcdStore, config: EtcdConfig, *, timeout: float) -> None:  # noqa: ASYNC109  # a setting
    """Wait for the etcd. Raises ``Fault`` when TLS can never work, or when it does not answer."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    pause = 1.0
    while True:
        try:
            async with asyncio.timeout(min(pause, max(0.01, end - loop.time()))):
                await store.connected(beyond=0)
                return
        except TimeoutError:
            pause = min(2 * pause, 10.0)
        if sentence := await tlscheck.diagnose(config, timeout=config.dial_timeout):
            raise Fault(sentence)
        if loop.time() >= end:
            said = store.status_text().partition("; connecting again")[0]
            raise Fault(f"{said}; check endpoints in --etcd-config, and that it runs")


async def secure(config: EtcdConfig, cluster: str, peers: Sequence[User] | None) -> None:
    """Users, roles and authentication as they should be (contract kvstore 7). Raises ``Fault``."""
    if not by_certificate(config):
        log.warning("etcd without client certificates: authentication is not turned on")
        return
    try:
        await ensure_auth(config, cluster, peers)
    except Denied as error:
        raise Fault(
            f"etcd knows our certificate {config.cert_file} but not as an administrator ({error}): "
            f"cert-file must be that of admin-{cluster}"
        ) from None


def by_certificate(config: EtcdConfig) -> bool:
    """Whether we could still log in when authentication is on: users have no passwords."""
    return config.cert_file is not None and all(one.secure for one in config.endpoints)


async def own(store: EtcdStore, settings: Settings) -> None:
    """Make sure that the etcd is this cluster's. Raises ``Fault``."""
    while True:
        met = store.connections
        try:
            await guard.check_ownership(
                store,
                cluster=settings.cluster_name,
                cluster_id=settings.cluster_id,
                replace_id=settings.replace_cluster_id,
            )
        except Unavailable:
            await store.connected(beyond=met)
        except Denied as error:
            raise Fault(
                f"etcd lets our certificate read too little ({error}): cert-file in --etcd-config "
                f"must be that of admin-{settings.cluster_name}"
            ) from None
        else:
            return
