"""Credentials of a long life: what is renewed under a process is taken up without a restart."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clustermesh.errors import NoAnswer, UsageError
from clustermesh.places.connection import Connection
from clustermesh.places.standing import Standing
from clustermesh.sources.kubernetes.settings import KubernetesSettings
from tests.support.kube.kubeserver import ADMIN_TOKEN
from tests.support.kube.members import Member, members
from tests.support.kube.plugin import plugin
from tests.support.kube.rbac import ADMIN, MASTERS

NAMESPACES = "/api/v1/namespaces"
ANOTHER = {"token": "another"}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Member]]:
    with members(tmp_path_factory.mktemp("standing")) as (kubeconfig, here, _):
        yield kubeconfig, here


@pytest.fixture
def here(servers: tuple[Path, Member]) -> Iterator[Member]:
    member = servers[1]
    member.kube.api.users[ADMIN_TOKEN] = ADMIN
    yield member
    member.kube.api.users.pop("another", None)


@pytest.fixture
def config(servers: tuple[Path, Member], tmp_path: Path) -> "Config":
    return Config(servers[0], tmp_path / "kubeconfig")


class Config:
    """A kubeconfig of one's own, changed as an administrator does."""

    def __init__(self, model: Path, path: Path) -> None:
        self.path = path
        self.document: dict[str, Any] = json.loads(model.read_text())
        self.write()

    def write(self) -> None:
        self.path.write_text(json.dumps(self.document))

    def user(self, **fields: object) -> None:
        self.document["users"][0]["user"] = fields
        self.write()

    def connect(self) -> Connection:
        return Connection("here", str(self.path))


def test_a_token_that_is_replaced_in_the_kubeconfig(here: Member, config: Config):
    made = config.connect()
    assert made.items(NAMESPACES)
    here.kube.api.users["another"] = here.kube.api.users.pop(ADMIN_TOKEN)
    config.user(**ANOTHER)
    assert made.items(NAMESPACES), "read again when it was refused"


def test_a_client_certificate_that_ended_and_was_renewed(
    here: Member, config: Config, tmp_path: Path
):
    certificate, key = tmp_path / "client.crt", tmp_path / "client.key"

    def issue(until: datetime) -> None:
        pair = here.kube.authority.client("operator", MASTERS, until=until)
        certificate.write_text(pair.certificate)
        key.write_text(pair.key)

    now = datetime.now(UTC)
    issue(now - timedelta(minutes=30))
    config.user(**{"client-certificate": str(certificate), "client-key": str(key)})
    made = config.connect()
    with pytest.raises(NoAnswer, match="does not answer"):
        made.items(NAMESPACES)
    issue(now + timedelta(hours=1))
    made._standing._not_before = 0.0
    assert made.items(NAMESPACES)


def test_a_new_authority_of_the_api_server(here: Member, config: Config):
    cluster = config.document["clusters"][0]["cluster"]
    right = cluster.pop("certificate-authority-data")
    config.write()
    made = config.connect()
    with pytest.raises(NoAnswer, match="CERTIFICATE_VERIFY_FAILED"):
        made.items(NAMESPACES)
    cluster["certificate-authority-data"] = right
    config.write()
    made._standing._not_before = 0.0
    assert made.items(NAMESPACES)


def test_a_token_file_is_read_at_every_use(here: Member, config: Config, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text(f"{ADMIN_TOKEN}\n")
    config.user(tokenFile=str(token))
    made = config.connect()
    assert made.items(NAMESPACES)
    here.kube.api.users["another"] = here.kube.api.users.pop(ADMIN_TOKEN)
    token.write_text("another\n")
    assert made.items(NAMESPACES)
    token.unlink()
    assert made.items(NAMESPACES), "while it is away the old one goes on"


def test_a_token_that_is_no_line_is_neither_sent_nor_told(
    here: Member, config: Config, tmp_path: Path
):
    """Python's HTTP client refuses it with an error that quotes it."""
    token = tmp_path / "token"
    token.write_text(ADMIN_TOKEN)
    config.user(tokenFile=str(token))
    made = config.connect()
    for broken in (b"secret\nsecret", "secr\u00e9t".encode(), b"secret\xff"):
        token.write_bytes(broken)
        assert made.items(NAMESPACES), "the old one goes on"
    for broken in ("secret\nsecret", "secr\u00e9t"):
        config.user(token=broken)
        with pytest.raises(UsageError, match="is not one line of ASCII") as error:
            config.connect()
        assert "secr" not in str(error.value)


def telling(folder: Path, token: str, end: str) -> dict[str, Any]:
    """A user whose token a program tells; it counts how often."""
    return plugin(
        folder,
        "count = folder / 'count'\n"
        "count.write_text((count.read_text() if count.exists() else '') + '.')\n"
        f"status = {{'token': {token!r}, 'expirationTimestamp': {end!r}}}",
    )


def test_a_plugin_is_asked_before_its_token_ends(here: Member, config: Config, tmp_path: Path):
    end = 2208988800.0
    config.user(exec=telling(tmp_path, ADMIN_TOKEN, "2040-01-01T00:00:00Z"))
    now = [end - 3600]
    settings = KubernetesSettings(kubeconfig=config.path, context="here")
    standing = Standing(settings, now=lambda: now[0])
    standing.current()
    assert (tmp_path / "count").read_text() == "."
    now[0] = end - 30
    standing.current()
    standing.current()
    assert (tmp_path / "count").read_text() == "..", "not at every use from then on"


def test_credentials_that_are_refused_for_good_say_so_and_are_not_read_at_every_use(
    here: Member, config: Config, tmp_path: Path
):
    config.user(exec=telling(tmp_path, "revoked", "2040-01-01T00:00:00Z"))
    made = config.connect()
    for _ in range(3):
        with pytest.raises(NoAnswer, match=r"context here: .*401"):
            made.items(NAMESPACES)
    assert (tmp_path / "count").read_text() == ".."
    config.path.write_text("nonsense: [")
    made._standing._not_before = 0.0
    with pytest.raises(NoAnswer, match="context here: no credentials"):
        made.items(NAMESPACES)
    with pytest.raises(UsageError, match="context here: no credentials"):
        config.connect()


def test_of_many_threads_one_renews(here: Member, config: Config, tmp_path: Path):
    config.user(exec=telling(tmp_path, ADMIN_TOKEN, "2040-01-01T00:00:00Z"))
    made = config.connect()
    here.kube.api.users["another"] = here.kube.api.users.pop(ADMIN_TOKEN)
    config.user(exec=telling(tmp_path, "another", "2040-01-01T00:00:00Z"))
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(len(made.items(NAMESPACES)))) for _ in range(6)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert len(found) == 6
    assert all(found)
    assert (tmp_path / "count").read_text() == ".."
