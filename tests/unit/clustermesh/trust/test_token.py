"""Join tokens as text: whole, unchanged and signed, or of no use."""

import base64
import json

import pytest

from clustermesh.certificates import pin
from clustermesh.pki import Authority
from clustermesh.trust import token
from clustermesh.trust.attempts import ALL, EACH, MOST_SOURCES, WINDOW, Attempts
from clustermesh.trust.token import Token, TokenError


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("cluster-b")


@pytest.fixture(scope="module")
def text(authority: Authority) -> str:
    made = Token(
        id="0123456789abcdef",
        host="cluster-b",
        guest="cluster-a",
        addresses=("192.0.2.7:9882",),
        ca=pin(authority.root),
        expires=1_800_000_000,
        secret=token.new_secret(),
    )
    return token.write(made, authority)


def usable(text: str, authority: Authority) -> bool:
    try:
        token.read(text)
        token.verify(text, authority.root)
    except TokenError:
        return False
    return True


def test_what_was_written_is_read(text: str, authority: Authority):
    assert usable(text, authority)
    assert usable(f"  {text}\n", authority)
    assert token.read(text).guest == "cluster-a"


def test_every_part_of_a_token_is_refused(text: str, authority: Authority):
    assert not any(usable(text[:end], authority) for end in range(len(text)))
    assert not any(usable(text[begin:], authority) for begin in range(1, len(text)))


def test_every_changed_character_is_noticed(text: str, authority: Authority):
    for at in range(len(text)):
        other = "A" if text[at] != "A" else "B"
        assert not usable(text[:at] + other + text[at + 1 :], authority), at


def test_a_token_signed_by_another_authority_is_forged(text: str, authority: Authority):
    mallory = Authority.create("cluster-b")
    forged = token.write(token.read(text), mallory)
    token.read(forged)
    with pytest.raises(TokenError, match="forged"):
        token.verify(forged, authority.root)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../../etc/passwd"},
        {"secret": "c2hvcnQ"},
        {"more": 1},
        {"expires": "soon"},
        {"ca": 1},
    ],
)
def test_content_that_is_none_is_refused(
    text: str, authority: Authority, change: dict[str, object]
):
    payload = text.split(".")[1]
    content = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))) | change
    encoded = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    with pytest.raises(TokenError):
        token.read(f"cmj1.{encoded}.AAAA")


@pytest.mark.parametrize("text", ["", "cmj1", "cmj1..", "cmj2.AA.AA", "x" * 5000, "cmj1.\x00.AA"])
def test_what_is_no_token_is_refused(text: str):
    with pytest.raises(TokenError):
        token.read(text)


def test_the_secret_is_not_shown_by_accident(text: str):
    made = token.read(text)
    assert made.secret not in f"{made} {made!r}"


def test_a_proof_is_for_one_purpose_and_one_message():
    key = token.proof_key("secret")
    proof = token.prove(key, "join", "hello")
    assert token.proves(key, "join", "hello", proof)
    for purpose, message in (("finish", "hello"), ("join", "hellO"), ("join\nhello", "")):
        assert not token.proves(key, purpose, message, proof)
    assert not token.proves(key, "join", "hello", "")
    assert not token.proves(key, "join", "hello", "\udcff")
    assert not token.proves(token.proof_key("other"), "join", "hello", proof)


def test_who_fails_too_often_waits_a_minute_and_nobody_else_does():
    clock = [0.0]
    attempts = Attempts(lambda: clock[0])
    for _ in range(EACH):
        assert attempts.allowed("192.0.2.1")
        attempts.failed("192.0.2.1")
    assert not attempts.allowed("192.0.2.1")
    assert attempts.allowed("192.0.2.2")
    clock[0] = WINDOW
    assert attempts.allowed("192.0.2.1")


def test_many_sources_together_are_stopped_and_forgotten():
    clock = [0.0]
    attempts = Attempts(lambda: clock[0])
    for number in range(ALL):
        attempts.failed(f"source {number}")
    assert not attempts.allowed("another")
    for number in range(3 * MOST_SOURCES):
        attempts.failed(f"source {number}")
    assert len(attempts._by) == MOST_SOURCES
