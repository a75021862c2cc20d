"""Prints how to reach the API server, as one JSON document: the official package's only user.

Run as ``python -m clustermesh.sources.kubernetes.login``; see ``access.log_in`` for the reason.
Exits with 1 and a sentence on standard error when there are no credentials.
"""

import argparse
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml
from kubernetes import client, config
from kubernetes.config import incluster_config, kube_config

from clustermesh.sources.kubernetes.access import Login


class _Complaints(logging.Handler):
    """The package logs a plugin's failure and goes on without credentials."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(" ".join(record.getMessage().split()))


def main() -> int:
    """Print the login."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig", default="")
    parser.add_argument("--context", default="")
    chosen = parser.parse_args()
    try:
        login = _login(chosen.kubeconfig, chosen.context)
    except (config.ConfigException, OSError, ValueError, yaml.YAMLError) as error:
        return _refuse(str(error))
    except (KeyError, TypeError, AttributeError):
        return _refuse("the kubeconfig is not one: clusters, contexts or users are malformed")
    sys.stdout.buffer.write(msgspec.json.encode(login))
    return 0


def _refuse(reason: str) -> int:
    """Say so, without the parts of the file (maybe secret) that the package quotes."""
    words = re.sub(r"/?\{.*\}?", "", " ".join(reason.split())).rstrip(". ")
    sys.stderr.write(f"no credentials for the Kubernetes API: {words}\n")
    return 1


def _login(kubeconfig: str, context: str) -> Login:
    in_pod = incluster_config.SERVICE_HOST_ENV_NAME in os.environ
    if in_pod and not kubeconfig and not context:
        return _of_pod()
    return _of_kubeconfig(kubeconfig or kube_config.KUBE_CONFIG_DEFAULT_LOCATION, context)


def _of_pod() -> Login:
    found = client.Configuration()
    config.load_incluster_config(client_configuration=found, try_refresh_token=False)
    return _as_login(found, token_file=incluster_config.SERVICE_TOKEN_FILENAME, expires=0.0)


def _of_kubeconfig(paths: str, context: str) -> Login:
    complaints = _Complaints()
    logging.getLogger().addHandler(complaints)
    merged = kube_config.KubeConfigMerger(paths).config
    if merged is None:
        raise config.ConfigException(f"{paths} does not exist or is empty")
    loader = kube_config.KubeConfigLoader(
        merged, active_context=context or None, config_base_path=None
    )
    found = client.Configuration()
    loader.load_and_set(found)
    if complaints.texts:
        raise config.ConfigException(f"{paths}: {complaints.texts[-1]}")
    expiry = getattr(loader, "expiry", None)
    return _as_login(
        found,
        token_file=_token_file(merged, loader.current_context),
        expires=expiry.timestamp() if expiry else 0.0,
    )


def _token_file(merged: kube_config.ConfigNode, context: dict[str, Any]) -> str:
    """A user's ``tokenFile``, which may change in place."""
    name = context["context"].get("user")
    user = merged["users"].get_with_name(name, safe=True) if name and "users" in merged else None
    if not user or not user["user"] or "token" in user["user"]:
        return ""
    path = user["user"].safe_get("tokenFile")
    return str(Path(user.path or ".").parent / path) if path else ""


def _as_login(found: client.Configuration, *, token_file: str, expires: float) -> Login:
    return Login(
        server=found.host,
        ca=_text(found.ssl_ca_cert),
        certificate=_text(found.cert_file),
        key=_text(found.key_file),
        authorization=_header(
            found.api_key.get("BearerToken") or found.api_key.get("authorization") or ""
        ),
        token_file=token_file,
        expires=expires,
        verify=bool(found.verify_ssl),
        server_name=getattr(found, "tls_server_name", None) or "",
    )


def _header(value: str) -> str:
    """``Bearer x``, whichever way the package writes it."""
    scheme, _, secret = value.strip().partition(" ")
    return f"{scheme.capitalize()} {secret.strip()}" if secret else value.strip()


def _text(path: str | None) -> str:
    return Path(path).read_text() if path else ""


if __name__ == "__main__":
    sys.exit(main())
