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
        (b"endpoint: http://a:1", "missing required field `endpoints`"),
        (b"endpoints: http://a:1", r"\$.endpoints: Expected `array`"),
        (b"endpoints: []", r"\$.endpoints: expected at least one"),
        (b"endpoints: [http://a:1, 5]", r"\$.endpoints\[1\]: Expected `str`"),
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
            r"\$.cilium-host-aliases\[...\]: Expected `object`",
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
