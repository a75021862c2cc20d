"""Secrets are searched for in what was redacted, in every form in which they come."""

import base64
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from clustermesh.meshctl.sysdump.redact import GONE, redacted
from clustermesh.trust.token import MARK

KEY = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    .decode()
)
BODY = "".join(KEY.splitlines()[1:-1])
HALF = BODY[10:50]
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        json.dumps({"key": KEY}),
        json.dumps({"log": json.dumps({"key": KEY})}),
        KEY[: len(KEY) // 2],
        json.dumps({"key": KEY})[:150],
        KEY.replace("PRIVATE KEY", "EC PRIVATE KEY"),
        KEY.replace("\n", "\r\n"),
        f"  client-key: |\n    {KEY}",
    ],
)
def test_private_keys_in_any_form(form: str):
    told = redacted(f"before {form}".encode()).decode()
    assert HALF not in told.replace("\n", "").replace("\\n", "").replace("\r", "")
    assert told.startswith("before ")
    assert GONE.decode() in told


@pytest.mark.parametrize("form", [KEY[40:], json.dumps({"key": KEY})[50:]])
def test_a_private_key_whose_beginning_was_cut_off(form: str):
    told = redacted(form.encode()).decode()
    assert BODY[60:90] not in told.replace("\n", "").replace("\\n", "")
    assert GONE.decode() in told


def test_a_private_key_in_base64():
    hidden = base64.b64encode(KEY.encode()).decode()
    told = redacted(f"client-key-data: {hidden}\nnext: 1\n".encode()).decode()
    assert hidden[20:60] not in told
    assert "next: 1" in told


@pytest.mark.parametrize(
    ("said", "secret"),
    [
        ("password: hunter2hunter2", "hunter2"),
        ('{"password":"hunter2 hunter2","a":1}', "hunter2"),
        ("{'passwd': 'hunter2'}", "hunter2"),
        ('{"log":"{\\"password\\":\\"hunter2\\"}"}', "hunter2"),
        ("ETCD_PASSWORD=hunter2 other=1", "hunter2"),
        ("token = abcdef0123456789", "abcdef0123456789"),
        ('"bootstrap-token": "abcdef.0123456789"', "0123456789"),
        ("Authorization: Bearer abcdefghijklmnop", "abcdefghijklmnop"),
        (f"authorization: bearer {JWT}", JWT[10:40]),
        (f"kubelet said {JWT} to me", "c2lnbmF0dXJlLW9m"),
        (f"join with {MARK}.eyJpZCI6IjAx.c2lnbmF0dXJl now", "c2lnbmF0dXJl"),
        (f"a part of one: {MARK}.eyJpZCI6IjAxMjM0", "eyJpZCI6"),
        ("https://root:hunter2@10.0.0.1:2379/v3", "hunter2"),
        ("psk=0x0123456789abcdef", "0123456789abcdef"),
        ("aws_secret_access_key: wJalrXUtnFEMIK7MDENG", "wJalrXUtnFEMIK7MDENG"),
    ],
)
def test_passwords_and_tokens(said: str, secret: str):
    told = redacted(said.encode()).decode()
    assert secret not in told
    assert GONE.decode() in told


@pytest.mark.parametrize(
    "said",
    [
        "identity=155508 encryptkey=0 tunnelendpoint=172.30.2.11",
        "key-file: /etc/clustermesh/tls.key",
        '{"key":"cilium/state/nodes/v1/a/n1","revision":7}',
        "https://10.0.0.1:2379: connection refused",
        "k8s:io.kubernetes.pod.namespace=default",
        "-----BEGIN CERTIFICATE-----",
    ],
)
def test_what_is_no_secret_stays(said: str):
    assert redacted(said.encode()).decode() == said


def test_json_stays_json():
    told = redacted(json.dumps({"password": "a b", "n": 1, "token": "x" * 20, "z": []}).encode())
    assert json.loads(told)["n"] == 1


@given(st.binary(max_size=400))
def test_it_never_fails_and_twice_is_once(content: bytes):
    once = redacted(content)
    assert redacted(once) == once


def test_a_long_hostile_part_takes_no_long_time():
    for piece in (
        b"password",
        b'password:"',
        b"eyJaaaaaaa.",
        b"-----BEGIN PRIVATE KEY-----",
        b"a:",
    ):
        redacted(piece * 40_000)
