"""Joining by files alone: what both sides have afterwards, and every way to cheat."""

import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from clustermesh.certificates import CertificateError, pem_of
from clustermesh.meshctl import connect
from clustermesh.meshfile import Mesh
from clustermesh.pki import Authority
from clustermesh.places.place import on_files
from clustermesh.trust import issuing, messages, users
from clustermesh.trust import token as tokens
from clustermesh.trust.books import on_files as on_disk
from clustermesh.trust.host import Host
from clustermesh.trust.ledger import UNKNOWN, State
from clustermesh.trust.messages import Envelope, Finish, JoinError, Request, Sealed
from clustermesh.trust.token import TokenError
from kvstore.config import EtcdConfig
from tests.support.joining import Pair


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def whole(pair: Pair, text: str) -> None:
    """As ``meshctl join`` does it."""
    guest = pair.guest(text)
    answer, finish = guest.accept(pair.host().join(guest.request()))
    pair.host().finish(finish)
    guest.connect(answer)


def forged(envelope: Envelope, text: str, **changes: object) -> Envelope:
    """The envelope with changes to its request, proved by the token's owner."""
    request = msgspec.json.decode(envelope.message, type=Request)
    named = {k: v for k, v in changes.items() if k in Request.__struct_fields__}
    of_member = {k: v for k, v in changes.items() if k not in named}
    member = msgspec.structs.replace(request.member, **of_member)
    named.setdefault("member", member)
    message = messages.encode(msgspec.structs.replace(request, **named))
    proof = tokens.prove(tokens.read(text).key, envelope.purpose, message)
    return msgspec.structs.replace(envelope, message=message, proof=proof)


def state(pair: Pair) -> list[str]:
    return [one.state for one in pair.host().ledger.listed()]


def test_both_sides_end_with_what_connect_would_have_written(pair: Pair):
    whole(pair, pair.invite())
    for reader, source in ((pair.a, pair.b), (pair.b, pair.a)):
        config = EtcdConfig.load(reader.config_dir / source.name)
        assert [one.host for one in config.endpoints] == [f"{source.name}.mesh.cilium.io"]
        authority = Authority.load(source.ca_cert, source.ca_key)
        assert Path(str(config.trusted_ca_file)).read_bytes() == authority.bundle
        assert authority.vouches_for(Path(str(config.cert_file)), f"remote-{reader.name}")
        assert [user.name for user in users.read(on_files(source))] == [f"remote-{reader.name}"]
    assert state(pair) == ["done"]
    mesh = Mesh(clusters=(pair.a, pair.b))
    names = ["cluster-a", "cluster-b"]
    done = connect.perform(connect.CONNECT, mesh, names, timeout=0, report=lambda _: None)
    assert done.changes == ()


def test_no_key_and_no_secret_travels_and_files_are_their_owners(pair: Pair):
    text = pair.invite()
    guest = pair.guest(text)
    request = guest.request()
    sealed = pair.host().join(request)
    answer, finish = guest.accept(sealed)
    pair.host().finish(finish)
    guest.connect(answer)
    sent = b"".join(map(msgspec.json.encode, (request, sealed, finish)))
    files = pair.files()
    for name, content in files.items():
        if name.endswith(".key"):
            assert content.splitlines()[1] not in sent, name
    secret = tokens.read(text).secret.encode()
    assert secret not in sent
    assert not [name for name, content in files.items() if secret in content]
    made = [*pair.state.rglob("*"), *pair.a.config_dir.iterdir(), *pair.b.config_dir.iterdir()]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in made if path.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(it.stat().st_mode) for it in pair.state.iterdir()} == {0o700}


def test_a_token_is_good_once(pair: Pair):
    text = pair.invite()
    whole(pair, text)
    again = pair.cluster("cluster-a2", 1)
    thief = msgspec.structs.replace(again, name="cluster-a")
    before = pair.files()
    with pytest.raises(JoinError, match="used already"):
        pair.host().join(pair.guest(text, thief).request())
    changed = {k for k, v in pair.files().items() if before.get(k) != v}
    assert changed == {"cluster-a2/remotes/cluster-b.etcd-client.key"}


def test_a_replayed_request_gives_a_certificate_to_the_same_key_only(pair: Pair):
    text = pair.invite()
    guest = pair.guest(text)
    request = guest.request()
    first, _ = guest.accept(pair.host().join(request))
    second, _ = guest.accept(pair.host().join(request))
    keys = {
        one.public_key().public_numbers()
        for answer in (first, second)
        for one in messages.parsed(answer.certificate.encode(), "")[:1]
    }
    assert len(keys) == 1
    whole(pair, text)
    pair.clock.at += 3601
    with pytest.raises(JoinError, match="expired"):
        pair.host().join(request)


def test_an_expired_token_is_refused_on_both_sides(pair: Pair):
    text = pair.invite(life=60)
    guest = pair.guest(text)
    request = guest.request()
    pair.clock.at += 60
    with pytest.raises(TokenError, match="expired"):
        pair.guest(text)
    with pytest.raises(JoinError, match="expired"):
        pair.host().join(request)
    assert state(pair) == ["expired"]
    assert users.read(on_files(pair.b)) == ()


def test_an_answer_is_good_as_long_as_its_token(pair: Pair):
    guest = pair.guest(pair.invite(life=60))
    sealed = pair.host().join(guest.request())
    pair.clock.at += 60
    with pytest.raises(JoinError, match="answer has expired"):
        guest.accept(sealed)


def test_a_revoked_token_is_refused(pair: Pair):
    text = pair.invite()
    record = pair.host().ledger.revoke(tokens.read(text).id)
    assert record.state is State.REVOKED
    with pytest.raises(JoinError, match="revoked"):
        pair.host().join(pair.guest(text).request())
    with pytest.raises(JoinError, match="no such token"):
        pair.host().ledger.revoke("0" * 16)


def test_a_peer_that_was_locked_out_does_not_come_back_by_the_token_it_used(pair: Pair):
    text = pair.invite()
    request = pair.guest(text).request()
    whole(pair, text)
    assert users.remove(on_files(pair.b), "remote-cluster-a")
    with pytest.raises(JoinError, match="let in no more"):
        pair.host().join(request)
    assert pair.host().ledger.revoke(tokens.read(text).id).state is State.REVOKED
    with pytest.raises(JoinError, match="revoked"):
        pair.host().join(request)
    assert users.read(on_files(pair.b)) == ()


def test_an_id_of_a_peer_that_came_another_way_is_refused_by_both(pair: Pair):
    request = pair.guest(pair.invite()).request()
    taken = {1: "cluster-z"}
    host = Host(
        pair.b,
        on_files(pair.b),
        on_disk(pair.state),
        max_clusters=255,
        now=pair.clock,
        known=taken,
    )
    with pytest.raises(JoinError, match="cluster-z"):
        host.join(request)


def test_a_token_is_for_one_cluster(pair: Pair):
    text = pair.invite()
    other = pair.cluster("cluster-c", 3)
    with pytest.raises(TokenError, match="for cluster-a, not for cluster-c"):
        pair.guest(text, other)
    request = forged(pair.guest(text).request(), text, name="cluster-c", id=3)
    with pytest.raises(JoinError, match="for cluster-a, not for cluster-c"):
        pair.host().join(request)
    assert state(pair) == ["open"]


def test_a_token_made_up_by_somebody_else_is_refused_by_both(pair: Pair):
    text = pair.invite()
    made_up = msgspec.structs.replace(tokens.read(text), secret=tokens.new_secret())
    false = tokens.write(made_up, Authority.create("cluster-b"))
    with pytest.raises(JoinError, match=UNKNOWN):
        pair.host().join(pair.guest(false).request())
    guest = pair.guest(false)
    sealed = pair.host().join(pair.guest(text).request())
    with pytest.raises(TokenError, match="forged"):
        guest.accept(sealed)


@pytest.mark.parametrize("token", ["f" * 16, "../../x", "", "0" * 15 + "\n", "/etc/passwd"])
def test_a_token_that_is_not_recorded_does_not_exist(pair: Pair, token: str):
    request = msgspec.structs.replace(pair.guest(pair.invite()).request(), token=token)
    with pytest.raises(JoinError, match=UNKNOWN):
        pair.host().join(request)


def test_a_changed_message_proof_or_purpose_is_refused(pair: Pair):
    request = pair.guest(pair.invite()).request()
    for changes in (
        {"message": request.message.replace("2379", "2380")},
        {"proof": request.proof[:-1] + ("0" if request.proof[-1] != "0" else "1")},
        {"proof": ""},
        {"purpose": "finish"},
    ):
        with pytest.raises(JoinError, match=UNKNOWN):
            pair.host().join(msgspec.structs.replace(request, **changes))
    assert state(pair) == ["open"]


def cheats() -> Iterator[tuple[str, dict[str, object], str]]:
    yield "path traversal", {"name": "../../../etc/x"}, "no cluster name"
    yield "a path", {"name": "a/b"}, "no cluster name"
    yield "the host's own name", {"name": "cluster-b"}, "not for cluster-b"
    yield "the host's own id", {"id": 2}, "id: 2"
    yield "no id", {"id": 0}, "id: 0"
    yield "an id out of range", {"id": 256}, "id: 256"
    yield "another size of mesh", {"max_clusters": 511}, "max-connected-clusters"
    yield "no endpoints", {"endpoints": ()}, "endpoints"
    yield "many endpoints", {"endpoints": ("https://x:1",) * 17}, "endpoints"
    yield "plaintext", {"endpoints": ("http://192.0.2.1:2379",)}, "https:// only"
    yield "an endpoint that is none", {"endpoints": ("https://a b\nkey-file: /x",)}, "endpoints"
    yield "an alias that is none", {"host_aliases": {"x": ("not an ip",)}}, "expected an IP"
    yield "no trust", {"trust": ""}, "no certificate"
    leaf = Authority.create("cluster-a").client("x").certificate.decode()
    yield "a leaf as authority", {"trust": leaf}, "authorities only"
    many = pem_of(*[Authority.create("x").root] * 9).decode()
    yield "many authorities", {"trust": many}, "at most 8"
    yield "no request", {"csr": "hello"}, "signing request"
    key = ec.generate_private_key(ec.SECP256R1())
    admin = issuing.request("admin-cluster-b", key).decode()
    yield "a request for the administrator", {"csr": admin}, "for 'admin-cluster-b'"
    large = ec.generate_private_key(ec.SECP521R1())
    other = issuing.request("remote-cluster-a", large).decode()
    yield "a key of another kind", {"csr": other}, "P-256"
    yield "a huge request", {"csr": "x" * 20_000}, "more than"


@pytest.mark.parametrize(("how", "changes", "said"), list(cheats()), ids=lambda it: str(it)[:24])
def test_what_cannot_be_a_member_is_refused_and_the_token_stays_good(
    pair: Pair, how: str, changes: dict[str, object], said: str
):
    text = pair.invite()
    request = pair.guest(text).request()
    before = pair.files()
    with pytest.raises(JoinError, match=said):
        pair.host().join(forged(request, text, **changes))
    assert pair.files() == before, how
    whole(pair, text)


def test_a_request_that_is_not_signed_by_its_key_is_refused(pair: Pair):
    text = pair.invite()
    request = pair.guest(text).request()
    csr = msgspec.json.decode(request.message, type=Request).csr
    lines = csr.splitlines()
    for at in range(1, len(lines) - 1):
        swapped = lines[at][::-1]
        broken = "\n".join([*lines[:at], swapped, *lines[at + 1 :]])
        with pytest.raises(JoinError, match="signing request"):
            pair.host().join(forged(request, text, csr=broken))


@pytest.mark.parametrize("message", ["", "{}", "[]", "null", '{"member":{}}', "x" * 200_000])
def test_a_message_that_is_none_is_refused(pair: Pair, message: str):
    text = pair.invite()
    proof = tokens.prove(tokens.read(text).key, "join", message)
    request = Envelope(token=tokens.read(text).id, purpose="join", message=message, proof=proof)
    with pytest.raises(JoinError, match="message"):
        pair.host().join(request)


def test_an_id_that_another_member_has_is_refused(pair: Pair):
    whole(pair, pair.invite())
    text = pair.invite("cluster-c")
    other = pair.cluster("cluster-c", 1)
    with pytest.raises(JoinError, match="id 1 is that of cluster-a"):
        pair.host().join(pair.guest(text, other).request())


def test_a_member_joins_again_for_new_certificates_with_the_keys_it_has(pair: Pair):
    whole(pair, pair.invite())
    before = pair.files()
    whole(pair, pair.invite())
    changed = {name for name, content in pair.files().items() if before.get(name) != content}
    assert {Path(name).name for name in changed if "/state/" not in name} == {
        "cluster-a.etcd-client.crt",
        "cluster-b.etcd-client.crt",
        "cluster-a.etcd-client-ca.crt",
        "cluster-b.etcd-client-ca.crt",
    } - {Path(n).name for n in before if before[n] == pair.files()[n]}


def test_a_crash_between_record_and_answer_loses_nothing_to_the_guest(pair: Pair, tmp_path: Path):
    """Killed after any one write: the same guest goes on, a thief gets nothing."""
    for stop in range(1, 8):
        one = Pair(tmp_path / f"run-{stop}")
        text = one.invite()
        guest = one.guest(text)
        request = guest.request()
        with Breaking(stop), suppress(PowerCut):
            one.host().join(request)
        thief = msgspec.structs.replace(one.cluster("thief", 1), name="cluster-a")
        if state(one) != ["open"]:
            with pytest.raises(JoinError, match="used already"):
                one.host().join(one.guest(text, thief).request())
        whole(one, text)
        assert state(one) == ["done"], stop


class PowerCut(BaseException):
    """The process is gone."""


class Breaking:
    """The n-th replacement of a file is the last thing that happens."""

    def __init__(self, at: int) -> None:
        self._left = at
        self._replace = Path.replace

    def __enter__(self) -> None:
        def replace(path: Path, target: Path) -> Path:
            done = self._replace(path, target)
            self._left -= 1
            if self._left == 0:
                raise PowerCut
            return done

        Path.replace = replace  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        Path.replace = self._replace  # type: ignore[method-assign]


def swap(sealed: Sealed, by: Authority, **changes: object) -> Sealed:
    answer = msgspec.json.decode(sealed.message, type=messages.Answer)
    return messages.seal(msgspec.structs.replace(answer, **changes), by)


def test_an_answer_from_anybody_else_is_refused(pair: Pair):
    guest = pair.guest(pair.invite())
    sealed = pair.host().join(guest.request())
    mallory = Authority.create("cluster-b")
    own = Authority.load(pair.b.ca_cert, pair.b.ca_key)
    stolen = pair.guest(pair.invite())
    for false, said in (
        (swap(sealed, mallory), "not signed by the authority"),
        (msgspec.structs.replace(sealed, signature=""), "not signed"),
        (msgspec.structs.replace(sealed, signature="!"), "not signed"),
        (msgspec.structs.replace(sealed, message=sealed.message + " "), "not signed"),
        (swap(sealed, own, token="0" * 16), "another token"),
        (swap(sealed, own, certificate="x"), "no certificate"),
        (
            swap(sealed, own, certificate=mallory.certificate.decode()),
            "not one of remote-cluster-a",
        ),
        (swap(sealed, own, csr="x"), "signing request"),
    ):
        with pytest.raises(JoinError, match=said):
            guest.accept(false)
    with pytest.raises(JoinError, match="another token"):
        stolen.accept(sealed)
    assert users.read(on_files(pair.a)) == ()
    guest.accept(sealed)


def test_the_last_message_is_checked_like_the_first(pair: Pair):
    text = pair.invite()
    guest = pair.guest(text)
    early = Finish(certificate="")
    key = tokens.read(text).key

    def finish(certificate: str) -> Envelope:
        message = messages.encode(msgspec.structs.replace(early, certificate=certificate))
        proof = tokens.prove(key, "finish", message)
        return Envelope(token=guest.token.id, purpose="finish", message=message, proof=proof)

    with pytest.raises(JoinError, match="join first"):
        pair.host().finish(finish(""))
    guest.accept(pair.host().join(guest.request()))
    own = Authority.load(pair.a.ca_cert, pair.a.ca_key)
    for certificate, said in (
        ("", "no certificate"),
        (own.client("remote-cluster-b").certificate.decode(), "for the key that was sent"),
        (own.certificate.decode(), "not one of remote-cluster-b"),
    ):
        with pytest.raises(JoinError, match=said):
            pair.host().finish(finish(certificate))
    assert not (pair.b.config_dir / "cluster-a").exists()


def test_an_authority_of_the_host_that_cannot_be_read_burns_no_token(pair: Pair):
    text = pair.invite()
    key = pair.b.ca_key.read_bytes()
    pair.b.ca_key.write_text("gone")
    with pytest.raises(CertificateError):
        pair.host().join(pair.guest(text).request())
    pair.b.ca_key.write_bytes(key)
    whole(pair, text)


def test_tokens_end_and_are_limited_in_number_and_life(pair: Pair):
    for life in (0, -1, 8 * 86_400):
        with pytest.raises(JoinError, match="at most 7 days"):
            pair.invite(life=life)
    for guest, said in (("../x", "no cluster name"), ("cluster-b", "this cluster itself")):
        with pytest.raises(JoinError, match=said):
            pair.invite(guest)
    for _ in range(100):
        pair.host().ledger.create("cluster-a", life=60)
    with pytest.raises(JoinError, match="100 tokens are open"):
        pair.invite()
    pair.clock.at += 60
    pair.invite()
    pair.clock.at += 31 * 86_400
    pair.invite()
    assert len(state(pair)) == 1


def test_a_record_that_cannot_be_read_is_no_token(pair: Pair):
    text = pair.invite()
    (path,) = (pair.state / "tokens").glob("*.json")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(JoinError, match=UNKNOWN):
        pair.host().join(pair.guest(text).request())
    assert state(pair) == []
