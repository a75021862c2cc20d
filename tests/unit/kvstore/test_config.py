"""An etcd client file, as the peer writes it, and every mistake by its path."""

from pathlib import Path
from random import Random

import pytest

from kvstore.channel import Address
from kvstore.config import ConfigError, Endpoint, EtcdConfig, parse
from kvstore.dial import addresses

REAL = b"""
endpoints:
- https://rome.mesh.cilium.io:2379
trusted-ca-file: /var/lib/cilium/clustermesh/common-etcd-client-ca.crt
key-file: /var/lib/cilium/clustermesh/common-etcd-client.key
cert-file: common-etcd-client.crt
cilium-host-aliases:
  rome.mesh.cilium.io:
    ips: [192.0.2.5, "2001:db8::5"]
"""
HERE = Path("/etc/mesh")


def test_a_file_as_the_peer_writes_it() -> None:
    config = parse(REAL, beside=HERE)
    assert config.endpoints == (Endpoint("rome.mesh.cilium.io", 2379, secure=True),)
    assert config.trusted_ca_file == "/var/lib/cilium/clustermesh/common-etcd-client-ca.crt"
    assert config.cert_file == "/etc/mesh/common-etcd-client.crt"
    assert config.ignored == ()
    assert (config.keepalive_time, config.keepalive_timeout, config.qps) == (15, 25, 20)


def test_an_alias_is_dialled_by_its_addresses_under_its_name() -> None:
    found = addresses(parse(REAL, beside=HERE), Random(0))
    assert {(address.endpoint.text, address.server_name) for address in found} == {
        ("192.0.2.5:2379", "rome.mesh.cilium.io"),
        ("[2001:db8::5]:2379", "rome.mesh.cilium.io"),
    }


def test_endpoints_are_shuffled_and_all_are_there() -> None:
    config = EtcdConfig.of(*(f"http://10.0.0.{n}:2379" for n in range(5)))
    orders = {tuple(addresses(config, Random(seed))) for seed in range(20)}
    assert len(orders) > 5
    assert all(sorted(map(str, order)) == sorted(map(str, next(iter(orders)))) for order in orders)
    assert all(isinstance(address, Address) for order in orders for address in order)


def test_durations_are_read_as_go_writes_them() -> None:
    text = b"endpoints: [http://a:1]\ndial-timeout: 1m30s\ndial-keep-alive-time: 7000000000\n"
    config = parse(text, beside=HERE)
    assert (config.dial_timeout, config.keepalive_time) == (90, 7)


def test_what_it_does_not_know_is_named() -> None:
    config = parse(b"endpoints: [http://a:1]\ntrusted-ca-fil: x\nzzz: 1\n", beside=HERE)
    assert config.ignored == ("trusted-ca-fil", "zzz")


def test_names_are_taken_in_any_case_as_go_takes_them() -> None:
    text = b"Endpoints: [https://a:1]\nTrusted-CA-File: /ca\nKEY-FILE: /k\ncert-File: /c\n"
    config = parse(text, beside=HERE)
    assert (config.trusted_ca_file, config.key_file, config.cert_file) == ("/ca", "/k", "/c")
    assert config.ignored == ()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("0123", "0123"),
        ("1e3", "1e3"),
        ("2001-99-99", "2001-99-99"),
        ("'12'", "12"),
        ("1:30", "1:30"),
    ],
)
def test_a_password_is_what_was_typed(written: str, meant: str) -> None:
    text = f"endpoints: [http://a:1]\nusername: 7\npassword: {written}\n".encode()
    config = parse(text, beside=HERE)
    assert (config.username, config.password) == ("7", meant)


def test_what_is_empty_is_absent() -> None:
    text = (
        b"endpoints: [http://a:1]\ntrusted-ca-file: ''\ncert-file: ''\nkey-file:\n"
        b"username: ''\npassword: ~\ncilium-host-aliases:\ninsecure-skip-tls-verify:\n"
    )
    config = parse(text, beside=HERE)
    assert (config.trusted_ca_file, config.cert_file, config.key_file) == (None, None, None)
    assert (config.username, config.password, config.host_aliases) == (None, None, {})


def test_flow_style_and_merged_maps_are_yaml_too() -> None:
    text = b"{endpoints: ['https://a:1'], common: &c {ca-file: ca}, <<: *c, zzz: 1}"
    config = parse(text, beside=HERE)
    assert (config.trusted_ca_file, config.ignored) == ("/etc/mesh/ca", ("common", "zzz"))


@pytest.mark.parametrize(
    ("rest", "secure"),
    [
        (b"", False),
        (b"trusted-ca-file: ca", True),
        (b"cert-file: c\nkey-file: k", True),
        (b"trusted-ca-file: ca\ninsecure-transport: true", False),
    ],
)
def test_an_endpoint_without_a_scheme_is_spoken_to_in_tls_if_there_is_something_for_it(
    rest: bytes, *, secure: bool
) -> None:
    config = parse(b"endpoints: ['a:1', 'http://b:2', 'https://c:3']\n" + rest, beside=HERE)
    assert [one.secure for one in config.endpoints] == [secure, False, True]


@pytest.mark.parametrize(
    "aliases",
    [
        b"{Rome.mesh: {ips: [192.0.2.5]}, b: {ips: []}, c: {}, d: }",
        b"[{hostname: rome.mesh, ips: [192.0.2.5]}, {hostname: b, ips: }]",
    ],
)
def test_aliases_are_a_map_or_a_list_and_one_without_addresses_is_none(aliases: bytes) -> None:
    text = b"endpoints: ['https://ROME.mesh:1', 'https://b:1']\ncilium-host-aliases: " + aliases
    config = parse(text, beside=HERE)
    assert config.host_aliases == {"rome.mesh": ("192.0.2.5",)}
    assert {str(it.endpoint) for it in addresses(config, Random(0))} == {
        "https://192.0.2.5:1",
        "https://b:1",
    }


def test_secrets_are_not_shown() -> None:
    text = b"endpoints: [http://a:1]\nusername: me\npassword: s3cret\n"
    config = parse(text, beside=HERE)
    assert "s3cret" not in repr(config)
    assert "s3cret" not in str(config)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", r"\$: Expected `object`"),
        (b"a: [", r"\$: expected YAML"),
        (b"\x80", r"\$: expected YAML"),
        (b"- x", r"\$: Expected `object`"),
        (b"endpoints: !!timestamp soon", r"\$: expected YAML"),
        (b"endpoints: !!int ''", r"\$: expected YAML"),
        (b"endpoints: !!bool perhaps", r"\$: expected YAML"),
        (b"endpoint: http://a:1", "missing required field `endpoints`"),
        (b"endpoints: http://a:1", r"\$.endpoints: Expected `array`"),
        (b"endpoints: []", r"\$.endpoints: expected at least one"),
        (b"endpoints: [http://a:1, {b: 1}]", r"\$.endpoints\[1\]: Expected `str`"),
        (b"endpoints: [http://a:1, 5]", r"\$.endpoints\[1\]: expected https://HOST:PORT"),
        (b"endpoints: " + b"[" * 5_000, r"\$: expected YAML"),
        (b"endpoints: ['http://a:1', 'ftp://b:1']", r"\$.endpoints\[1\]: expected https://HOST"),
        (b"endpoints: [https://a]", r"\$.endpoints\[0\]: expected https://HOST:PORT"),
        (b"endpoints: ['https://a:port']", r"\$.endpoints\[0\]: expected https://HOST:PORT"),
        (b"endpoints: ['https://a:1/path']", r"\$.endpoints\[0\]: expected"),
        (b"endpoints: [http://a:1]\ncert-file: x", r"\$.key-file: expected a path, since cert"),
        (b"endpoints: [http://a:1]\nkey-file: x", r"\$.cert-file: expected a path, since key"),
        (b"endpoints: [http://a:1]\nusername: x", r"\$.password: expected a text, since user"),
        (b"endpoints: [http://a:1]\ndial-timeout: soon", r"\$.dial-timeout: expected a duration"),
        (
            b"endpoints: [http://a:1]\ninsecure-skip-tls-verify: true",
            r"\$.insecure-skip-tls-verify: expected false",
        ),
        (
            b"endpoints: [http://a:1]\ncilium-host-aliases: {a: {ips: [nowhere]}}",
            r"\$.cilium-host-aliases.a.ips\[0\]: expected an IP address, got 'nowhere'",
        ),
        (
            b"endpoints: [http://a:1]\ncilium-host-aliases: {a: [1.2.3.4]}",
            r"\$.cilium-host-aliases\[...\]: Expected `object",
        ),
    ],
)
def test_a_mistake_is_named_by_its_path(text: bytes, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse(text, beside=HERE)


def test_a_file_is_read_from_its_place(tmp_path: Path) -> None:
    file = tmp_path / "rome"
    file.write_bytes(b"endpoints: [http://a:1]\ntrusted-ca-file: ca.crt\n")
    assert EtcdConfig.load(file).trusted_ca_file == str(tmp_path / "ca.crt")
    with pytest.raises(OSError, match="No such file"):
        EtcdConfig.load(tmp_path / "oslo")
