"""Ways to be known to an API server, and what is said when there is none."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from clustermesh.sources.kubernetes.access import Credentials, access_of, log_in
from clustermesh.sources.kubernetes.api import Api
from clustermesh.sources.kubernetes.failures import CredentialsError, Unauthorized, Unreachable
from tests.support.kube import manifests as make
from tests.support.kube.follow import QUICK, following
from tests.support.kube.kubeserver import ADMIN_TOKEN, Kube, Opens, running
from tests.support.kube.plugin import plugin
from tests.support.kube.rbac import MASTERS


def quick(kubeconfig: Path, **more: object) -> Api:
    return Api(msgspec.structs.replace(QUICK, kubeconfig=kubeconfig, **more))


async def test_a_client_certificate_lets_us_in(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        pair = kube.server.authority.client("operator", MASTERS)
        certificate, key = tmp_path / "client.crt", tmp_path / "client.key"
        certificate.write_text(pair.certificate)
        key.write_text(pair.key)
        config = kube.kubeconfig(**{"client-certificate": str(certificate), "client-key": str(key)})
        await kube.admin.apply(make.service("front"))
        async with quick(config) as api:
            assert b"front" in await api.get("/api/v1/services")


async def test_a_refused_token_is_asked_for_again(opens: Opens, tmp_path: Path) -> None:
    user = plugin(
        tmp_path,
        "count = folder / 'count'\n"
        "seen = int(count.read_text()) if count.exists() else 0\n"
        "count.write_text(str(seen + 1))\n"
        f"status = {{'token': 'expired' if seen == 0 else {ADMIN_TOKEN!r}}}",
    )
    async with running(opens, tmp_path) as kube:
        await kube.admin.apply(make.service("front"))
        async with following(kube.kubeconfig(exec=user)) as sink:
            await sink.until(lambda: sink.complete)
            assert not sink.sentences
        assert (tmp_path / "count").read_text() == "2", "once for all kinds"


async def test_a_plugin_may_give_a_certificate(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        pair = kube.server.authority.client("operator", MASTERS)
        status = {"clientCertificateData": pair.certificate, "clientKeyData": pair.key}
        (tmp_path / "status.json").write_text(json.dumps(status))
        user = plugin(tmp_path, "status = json.loads((folder / 'status.json').read_text())")
        async with quick(kube.kubeconfig(exec=user)) as api:
            assert b"NamespaceList" in await api.get("/api/v1/namespaces")


async def test_credentials_are_renewed_before_they_end(opens: Opens, tmp_path: Path) -> None:
    user = plugin(
        tmp_path,
        "count = folder / 'count'\n"
        "count.write_text((count.read_text() if count.exists() else '') + '.')\n"
        f"status = {{'token': {ADMIN_TOKEN!r}, 'expirationTimestamp': '2040-01-01T00:00:00Z'}}",
    )
    end = 2208988800.0
    now = [end - 3600]
    async with running(opens, tmp_path) as kube:
        settings = msgspec.structs.replace(QUICK, kubeconfig=kube.kubeconfig(exec=user))
        async with Api(settings, Credentials(settings, now=lambda: now[0])) as api:
            await api.get("/api/v1/namespaces")
            await api.get("/api/v1/namespaces")
            assert (tmp_path / "count").read_text() == "."
            now[0] = end - 30
            await api.get("/api/v1/namespaces")
            assert (tmp_path / "count").read_text() == ".."


async def test_a_token_file_may_change_in_place(opens: Opens, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    async with running(opens, tmp_path) as kube:
        config = kube.kubeconfig(tokenFile=str(token))
        async with quick(config) as api:
            with pytest.raises(Unauthorized):
                await api.get("/api/v1/namespaces")
            token.write_text(f"{ADMIN_TOKEN}\n")
            assert b"NamespaceList" in await api.get("/api/v1/namespaces")
            token.write_text("revoked\n")
            await api.get("/api/v1/namespaces")  # not looked at again so soon
        async with quick(config, token_reread=0.0) as api:
            token.write_text(f"{ADMIN_TOKEN}\n")
            await api.get("/api/v1/namespaces")
            token.write_text("revoked\n")
            with pytest.raises(Unauthorized):
                await api.get("/api/v1/namespaces")


async def test_the_chosen_context_counts(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        document = json.loads(kube.kubeconfig("wrong", tokenFile="/dev/null").read_text())
        document["users"].append({"name": "right", "user": {"token": ADMIN_TOKEN}})
        document["contexts"].append(
            {"name": "other", "context": {"cluster": "test", "user": "right"}}
        )
        config = tmp_path / "two.kubeconfig"
        config.write_text(json.dumps(document))
        async with quick(config) as api:
            with pytest.raises(Unauthorized):
                await api.get("/api/v1/namespaces")
        async with quick(config, context="other") as api:
            await api.get("/api/v1/namespaces")


async def test_a_server_with_another_ca_is_not_believed(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        document = json.loads(kube.kubeconfig().read_text())
        del document["clusters"][0]["cluster"]["certificate-authority-data"]
        config = tmp_path / "no-ca.kubeconfig"
        config.write_text(json.dumps(document))
        async with quick(config) as api:
            with pytest.raises(Unreachable, match=r"certificate of .* is not accepted"):
                await api.get("/api/v1/namespaces")
        document["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True
        config.write_text(json.dumps(document))
        async with quick(config) as api:
            await api.get("/api/v1/namespaces")


def written(folder: Path, text: str) -> Path:
    path = folder / "kubeconfig"
    path.write_text(text)
    return path


NO_SERVER = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    "current-context": "x",
}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("", "empty"),
        ("a: [", "."),
        ("[1]", "malformed"),
        ("kind: Config", "current-context"),
        (json.dumps(NO_SERVER | {"current-context": "nowhere"}), "nowhere"),
        (json.dumps(NO_SERVER | {"users": [{"name": "u", "token": "s3cret"}]}), "user"),
        (
            json.dumps(
                NO_SERVER
                | {"users": [{"name": "u", "user": {"client-certificate": "/none", "token": "s"}}]}
            ),
            "/none",
        ),
    ],
)
async def test_a_bad_kubeconfig_is_one_sentence(config: str, said: str, tmp_path: Path) -> None:
    settings = msgspec.structs.replace(QUICK, kubeconfig=written(tmp_path, config))
    with pytest.raises(CredentialsError, match=said) as caught:
        await log_in(settings)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert str(caught.value).startswith("no credentials for the Kubernetes API: ")


async def test_a_plugin_that_fails_is_quoted(tmp_path: Path) -> None:
    user = plugin(tmp_path, "sys.exit('the single sign-on session has ended')")
    document = NO_SERVER | {"users": [{"name": "u", "user": {"exec": user}}]}
    settings = msgspec.structs.replace(QUICK, kubeconfig=written(tmp_path, json.dumps(document)))
    with pytest.raises(CredentialsError, match="the single sign-on session has ended"):
        await log_in(settings)


async def test_a_plugin_that_hangs_is_ended(tmp_path: Path) -> None:
    user = plugin(
        tmp_path, "(folder / 'pid').write_text(str(os.getpid()))\ntime.sleep(600)\nstatus = {}"
    )
    document = NO_SERVER | {"users": [{"name": "u", "user": {"exec": user}}]}
    settings = msgspec.structs.replace(
        QUICK, kubeconfig=written(tmp_path, json.dumps(document)), login_timeout=3.0
    )
    with pytest.raises(CredentialsError, match="gave no answer in 3 s"):
        await log_in(settings)
    started = tmp_path / "pid"
    if started.exists():
        await _ended(int(started.read_text()))


async def _ended(pid: int) -> None:
    """Soon it runs no more."""
    for _ in range(400):
        if not _runs(pid):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{pid} still runs")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


async def test_secrets_are_not_shown(opens: Opens, tmp_path: Path) -> None:
    async with running(opens, tmp_path) as kube:
        login = await log_in(_settings(kube))
        assert login.authorization == f"Bearer {ADMIN_TOKEN}"
        assert ADMIN_TOKEN not in repr(login) + repr(access_of(login))


def _settings(kube: Kube) -> object:
    return msgspec.structs.replace(QUICK, kubeconfig=kube.kubeconfig())
