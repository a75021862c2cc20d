"""The certificates this cluster lives by: the client files', and the one its etcd presents."""

import asyncio
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from clustermesh.apiserver import tlscheck
from clustermesh.apiserver.settings import Settings
from clustermesh.http import Query
from clustermesh.status import CertificateStatus, Probed
from clustermesh.trust import expiry
from kvstore.config import EtcdConfig

INTERVAL = 60.0  # seconds between looks at what the etcd presents
PATIENCE = 10.0  # seconds for one handshake


class Certificates:
    """Reads files when asked; asks the etcd itself now and then, since it rereads its own."""

    def __init__(self, settings: Settings, config: EtcdConfig) -> None:
        self._files = expiry.InUse(
            own=settings.cluster_name,
            client=settings.etcd_config,
            remotes=settings.clustermesh_config,
        )
        self._config = config
        self._settings = settings
        self._served: tuple[CertificateStatus, ...] = ()

    def read(self) -> tuple[CertificateStatus, ...]:
        """Those of the files as they are now, and the server's as it was last seen."""
        return (*self._served, *self._files.read())

    async def probe(self, query: Query) -> Probed:
        """POST /v1/trust/probe: would the own etcd take a new connection with this certificate?

        ``authority``, ``certificate`` and ``key`` are PEM texts; without them, the files in use.
        """
        config = self._config
        folder = self._settings.state_dir
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".probe-") as name:
            try:
                config = _instead(config, query, Path(name))
                said = await tlscheck.refused(config, timeout=PATIENCE)
            except ValueError as error:
                said = str(error)
        return Probed(ok=not said, said=said)

    async def watch(self, *, every: float = INTERVAL) -> None:
        """Look at the server's certificate, for ever."""
        while True:
            with suppress(OSError, TimeoutError, ValueError):
                async with asyncio.timeout(PATIENCE):
                    self._served = await served(self._config)
            await asyncio.sleep(every)


def _instead(config: EtcdConfig, query: Query, folder: Path) -> EtcdConfig:
    """The configuration with the certificates of the query, written for its owner only."""
    from clustermesh.pki import write_private  # brings cryptography along

    names = {
        "authority": "trusted_ca_file",
        "certificate": "cert_file",
        "key": "key_file",
    }
    given = {}
    for name, field in names.items():
        if text := query.get(name):
            path = folder / name
            write_private(path, text.encode())
            given[field] = str(path)
    return replace(config, **given)


async def served(config: EtcdConfig) -> tuple[CertificateStatus, ...]:
    """The server certificate of each endpoint that speaks TLS. Raises ``OSError`` and
    ``ValueError``.
    """
    tls = tlscheck.context(config)
    found = []
    for endpoint in config.endpoints:
        if not endpoint.secure:
            continue
        name = config.server_name or endpoint.host
        host = (config.host_aliases.get(endpoint.host) or (endpoint.host,))[0]
        _, writer = await asyncio.open_connection(
            host, endpoint.port, ssl=tls, server_hostname=name
        )
        try:
            der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        finally:
            writer.close()
        pem = ssl.DER_cert_to_PEM_cert(der).encode()
        found += [replace(one, what=f"server of {endpoint.text}") for one in expiry.first(pem)]
    return tuple(found)
