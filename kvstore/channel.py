"""Opening a channel: certificates as they are on disk now, and every gRPC option that matters."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from kvstore._grpc import grpc
from kvstore.client import Unavailable
from kvstore.config import Endpoint, EtcdConfig
from kvstore.wire import Link

_Grpc = Any  # grpc has no types; its objects do not leave this module


class Address(msgspec.Struct, frozen=True):
    """Where to dial, and the name the server must prove to have if that is not the address."""

    endpoint: Endpoint
    server_name: str | None = None


async def dial(address: Address, config: EtcdConfig) -> Link:
    """A new connection, certificates read now; raises ``Unavailable`` or ``Denied``."""
    options = _options(config, address.server_name)
    if address.endpoint.secure:
        credentials = await asyncio.to_thread(_credentials, config)
        channel = grpc.aio.secure_channel(address.endpoint.text, credentials, options=options)
    else:
        channel = grpc.aio.insecure_channel(address.endpoint.text, options=options)
    link = Link(channel, name=str(address.endpoint), config=config)
    try:
        await link.greet()
    except BaseException:
        await link.close()
        raise
    return link


def _credentials(config: EtcdConfig) -> _Grpc:
    def read(path: str | None) -> bytes | None:
        try:
            return None if path is None else Path(path).read_bytes()
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror}") from None

    return grpc.ssl_channel_credentials(
        read(config.trusted_ca_file), read(config.key_file), read(config.cert_file)
    )


def _options(config: EtcdConfig, server_name: str | None) -> Sequence[tuple[str, object]]:
    options: list[tuple[str, object]] = [
        (
            "grpc.use_local_subchannel_pool",
            1,
        ),  # or a "new" channel may quietly reuse an old connection
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        ("grpc.keepalive_time_ms", int(config.keepalive_time * 1000)),
        ("grpc.keepalive_timeout_ms", int(config.keepalive_timeout * 1000)),
        # the time within which a keepalive ping must be answered; on its own it would be a minute
        ("grpc.http2.ping_timeout_ms", int(config.keepalive_timeout * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
    ]
    if server_name is not None:
        options += [
            ("grpc.ssl_target_name_override", server_name),
            ("grpc.default_authority", server_name),
        ]
    return options
