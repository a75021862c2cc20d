"""How to reach one etcd: its client's file (contract kvstore 5.1) and what a client waits for."""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import yaml

MIB = 1 << 20


class ConfigError(ValueError):
    """A setting that cannot be used; the text names its path and says what was expected."""


class Endpoint(msgspec.Struct, frozen=True):
    """One address of an etcd server."""

    host: str
    port: int
    secure: bool

    @property
    def text(self) -> str:
        """``host:port`` as gRPC wants it, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.text}"


class EtcdConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that a client of one etcd needs to know. Times in seconds, sizes in bytes, rates per
    second.
    """

    endpoints: tuple[Endpoint, ...]
    trusted_ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None
    username: str | None = None
    password: str | None = None
    host_aliases: Mapping[str, tuple[str, ...]] = {}
    ignored: tuple[str, ...] = ()
    """Names in the file that this client does not know; status shows them, since one may be a
    misspelling.
    """

    qps: float = 20.0
    """Operations per second once bootstrap is over; a whole list, a transaction or the start of a
    watch is one.
    """
    bootstrap_qps: float = 10_000.0
    max_inflight: int | None = None
    """Operations under way at once; None: as many as ``qps``."""

    first_page_keys: int = 2_000
    page_keys: int = 20_000
    page_bytes: int = 4 * MIB
    """What a page of a list should weigh; the number of keys is adapted to it."""
    slice_keys: int = 500
    """A page is handed on in slices of this many keys, so that the event loop is never held for
    long.
    """
    max_message_bytes: int = 512 * MIB
    watch_backlog: int = 20_000
    """Events a watch holds for a slow consumer; beyond that the watch is ended and later resumed
    where it stopped.
    """

    keepalive_time: float = 15.0
    keepalive_timeout: float = 25.0
    dial_timeout: float = 5.0
    request_timeout: float = 60.0
    reconnect_first: float = 0.05
    reconnect_ceiling: float = 2.0
    progress_interval: float = 60.0
    """How often a progress mark is asked for, where the server's version makes the answer safe."""

    def __repr__(self) -> str:
        endpoints = ", ".join(map(str, self.endpoints))
        return f"EtcdConfig(endpoints={endpoints}, user={self.username or 'by certificate'})"

    @classmethod
    def of(cls, *endpoints: str, **rest: object) -> "EtcdConfig":
        """A configuration from endpoint texts and settings by name; raises ``ConfigError``."""
        try:
            return msgspec.convert(
                {
                    "endpoints": [
                        _endpoint(text, f"endpoints[{at}]") for at, text in enumerate(endpoints)
                    ],
                    **rest,
                },
                cls,
            )
        except msgspec.ValidationError as error:
            raise ConfigError(str(error)) from None

    @classmethod
    def load(cls, path: Path) -> "EtcdConfig":
        """Read a client file; raises ``ConfigError`` (bad content) or ``OSError`` (no file)."""
        return parse(path.read_bytes(), beside=path.parent)


class _Alias(msgspec.Struct, frozen=True):
    ips: tuple[str, ...] | None = None
    hostname: str = ""
    """Where aliases are a list, as some tools write them."""


class _File(msgspec.Struct, frozen=True, rename="kebab"):
    """The names of contract kvstore 5.1, and of etcd's own client, that mean something here."""

    endpoints: tuple[str, ...]
    trusted_ca_file: str | None = None
    ca_file: str | None = None
    """The older name of ``trusted-ca-file``."""
    insecure_transport: bool = False
    cert_file: str | None = None
    key_file: str | None = None
    username: str | None = None
    password: str | None = None
    insecure_skip_tls_verify: bool = False
    dial_timeout: str | None = None
    dial_keep_alive_time: str | None = None
    dial_keep_alive_timeout: str | None = None
    cilium_host_aliases: Mapping[str, _Alias | None] | tuple[_Alias, ...] | None = None

    def aliases(self) -> Mapping[str, tuple[str, ...]]:
        """The addresses to dial for a name. A name without any is dialled as it stands."""
        told = self.cilium_host_aliases or {}
        named = told.items() if isinstance(told, Mapping) else ((one.hostname, one) for one in told)
        return {name.lower(): one.ips for name, one in named if one is not None and one.ips}

    def has_tls(self) -> bool:
        """Are endpoints that do not say ``http`` or ``https`` meant to be spoken to in TLS?"""
        files = (self.trusted_ca_file, self.ca_file, self.cert_file)
        return any(files) and not self.insecure_transport


class _Loader(yaml.SafeLoader):
    """Takes plain scalars for text where Go's fields are text: a password of digits stays what
    was typed, and what looks like a date is none. Only booleans and nulls are told apart.
    """


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, like) for tag, like in known if tag.rpartition(":")[2] in ("bool", "merge", "null")
    ]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


_BAD_SCALAR = (ValueError, LookupError, AttributeError)
"""What PyYAML makes of a scalar that is not what its tag says."""


def document_of(text: bytes) -> object:
    """What a file says, its outermost names in lower case as Go takes them in any. Raises
    ``ConfigError`` for whatever is no YAML."""
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader with fewer types
    except (yaml.YAMLError, *_BAD_SCALAR, RecursionError) as error:
        raise ConfigError(f"$: expected YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        return document
    return {str(name).lower(): value for name, value in document.items()}


def parse(text: bytes, *, beside: Path) -> EtcdConfig:
    """A client file's content as a configuration; relative certificate paths are taken from
    ``beside``.
    """
    document = document_of(text)
    try:
        file = msgspec.convert(_said(document), _File)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{_path(str(error))}") from None
    _check(file)
    known = {field.encode_name for field in msgspec.structs.fields(_File)}
    config = EtcdConfig(
        endpoints=tuple(
            _endpoint(one, f"$.endpoints[{at}]", secure=file.has_tls())
            for at, one in enumerate(file.endpoints)
        ),
        trusted_ca_file=_beside(beside, file.trusted_ca_file or file.ca_file),
        cert_file=_beside(beside, file.cert_file),
        key_file=_beside(beside, file.key_file),
        username=file.username or None,
        password=file.password or None,
        host_aliases=file.aliases(),
        ignored=tuple(sorted(document.keys() - known)) if isinstance(document, dict) else (),
    )
    waits = (
        ("dial_timeout", "dial-timeout", file.dial_timeout),
        ("keepalive_time", "dial-keep-alive-time", file.dial_keep_alive_time),
        ("keepalive_timeout", "dial-keep-alive-timeout", file.dial_keep_alive_timeout),
    )
    given = {name: _seconds(value, f"$.{key}") for name, key, value in waits if value is not None}
    return msgspec.structs.replace(config, **given)


def _said(document: object) -> object:
    """A field without a value is as good as none, as it is for Go."""
    if not isinstance(document, dict):
        return document
    return {name: value for name, value in document.items() if value is not None}


def _check(file: _File) -> None:
    if not file.endpoints:
        raise ConfigError(
            "$.endpoints: expected at least one address such as https://192.0.2.5:2379"
        )
    if file.insecure_skip_tls_verify:
        raise ConfigError(
            "$.insecure-skip-tls-verify: expected false; name the server's CA in trusted-ca-file"
        )
    if bool(file.cert_file) != bool(file.key_file):
        present, absent = ("key-file", "cert-file") if file.key_file else ("cert-file", "key-file")
        raise ConfigError(f"$.{absent}: expected a path, since {present} is given")
    if bool(file.username) != bool(file.password):
        present, absent = ("password", "username") if file.password else ("username", "password")
        raise ConfigError(f"$.{absent}: expected a text, since {present} is given")
    for name, ips in file.aliases().items():
        for at, ip in enumerate(ips):
            try:
                ipaddress.ip_address(ip)
            except ValueError:
                raise ConfigError(
                    f"$.cilium-host-aliases.{name}.ips[{at}]: expected an IP address, got {ip!r}"
                ) from None


def _endpoint(text: str, path: str, *, secure: bool = False) -> Endpoint:
    """``secure``: what is meant where the text does not say."""
    wanted = f"{path}: expected https://HOST:PORT or http://HOST:PORT, got {text!r}"
    scheme = "https" if secure else "http"
    try:
        parts = urlsplit(text if "://" in text else f"{scheme}://{text}")
        port = parts.port
    except ValueError:
        raise ConfigError(wanted) from None
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or port is None
        or parts.path not in ("", "/")
    ):
        raise ConfigError(wanted)
    return Endpoint(host=parts.hostname, port=port, secure=parts.scheme == "https")


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(value: str, path: str) -> float:
    """A Go duration: a text such as ``1m30s``, or a number of nanoseconds."""
    if value.isascii() and value.isdecimal():
        return float(value) / 1e9
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+", value):
        raise ConfigError(f"{path}: expected a duration such as 15s, got {value!r}")
    return sum(
        float(number) * _UNITS[unit]
        for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", value)
    )


def _beside(folder: Path, name: str | None) -> str | None:
    return str(folder / name) if name else None


def _path(text: str) -> str:
    """msgspec's ``... - at `$.a.b``` with the path in front."""
    reason, found, at = text.rpartition(" - at ")
    return f"{at.strip('`')}: {reason}" if found else f"$: {text}"
