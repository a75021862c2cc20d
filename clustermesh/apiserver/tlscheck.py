"""Why TLS to an etcd cannot work, found out by trying: gRPC's own words name no file."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

from kvstore.config import Endpoint, EtcdConfig

ALERTS = ("CERTIFICATE_REQUIRED", "ALERT_", "alert")
"""Parts of the reasons with which OpenSSL tells that the other side refused us."""


def context(config: EtcdConfig) -> ssl.SSLContext:
    """The client's side of TLS. Raises ``ValueError`` naming the file that cannot be used."""
    _readable("trusted-ca-file", config.trusted_ca_file)
    try:
        # With a file, the system's authorities are not read: that costs 60 ms.
        made = ssl.create_default_context(cafile=config.trusted_ca_file)
    except (ssl.SSLError, OSError):
        raise ValueError(
            f"trusted-ca-file: {config.trusted_ca_file} holds no certificate"
        ) from None
    if config.cert_file and config.key_file:
        _readable("cert-file", config.cert_file)
        _readable("key-file", config.key_file)
        try:
            made.load_cert_chain(config.cert_file, config.key_file)
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or "not a certificate and its key in PEM"
            raise ValueError(
                f"cert-file and key-file: {config.cert_file} and {config.key_file} cannot be used "
                f"together: {reason.lower().replace('_', ' ')}"
            ) from None
    return made


def _readable(field: str, name: str | None) -> None:
    try:
        if name:
            Path(name).read_bytes()
    except OSError as error:
        raise ValueError(f"{field}: cannot read {name}: {error.strerror}") from None


async def diagnose(config: EtcdConfig, *, timeout: float) -> str | None:  # noqa: ASYNC109  # of each try
    """A sentence when an endpoint answers but TLS fails for good; None when it is not TLS."""
    tls = context(config)
    for endpoint in config.endpoints:
        if endpoint.secure:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(timeout):
                    reason = await _handshake(endpoint, config, tls)
                if reason:
                    return f"{endpoint}: {reason}"
    return None


async def refused(config: EtcdConfig, *, timeout: float) -> str:  # noqa: ASYNC109  # of each try
    """Why a new connection to one of the endpoints fails; empty when each of them takes us."""
    tls = context(config)
    for endpoint in config.endpoints:
        if not endpoint.secure:
            return f"{endpoint}: no TLS is configured"
        try:
            async with asyncio.timeout(timeout):
                reason = await _handshake(endpoint, config, tls)
        except TimeoutError:
            reason = f"no answer within {timeout:g} s"
        except OSError as error:
            reason = error.strerror or str(error)
        if reason:
            return f"{endpoint}: {reason}"
    return ""


async def _handshake(endpoint: Endpoint, config: EtcdConfig, tls: ssl.SSLContext) -> str | None:
    aliases = config.host_aliases.get(endpoint.host)
    host = aliases[0] if aliases else endpoint.host
    name = config.server_name or endpoint.host
    writer = None
    try:
        reader, writer = await asyncio.open_connection(
            host, endpoint.port, ssl=tls, server_hostname=name
        )
        # In TLS 1.3 the other side refuses our certificate after the handshake.
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        await reader.read(1)
    except ssl.SSLCertVerificationError as error:
        return (
            f"the server's certificate is not one for {name} signed by "
            f"{config.trusted_ca_file or 'an authority this system knows'} "
            f"({error.verify_message}); check endpoints and trusted-ca-file"
        )
    except ssl.SSLError as error:
        if any(part in str(error) for part in ALERTS):
            return (
                f"the server refuses our certificate {config.cert_file or '(none is set)'} "
                f"({error.reason}); check cert-file: etcd must trust its authority"
            )
        return f"no TLS there ({error.reason}); use http:// if the etcd serves without TLS"
    finally:
        if writer is not None:
            writer.close()
    return None
