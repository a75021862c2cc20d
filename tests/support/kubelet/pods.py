"""A pod's manifest as what its containers are: pure."""

import re
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Manifest = dict[str, Any]

PROJECT = Path(__file__).parents[3]
SITE, SOURCE = "/opt/image/site-packages", "/opt/image/source"
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


class Container(NamedTuple):
    """How one process is started; ``mounts`` are (path, volume)."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    mounts: tuple[tuple[str, str], ...]
    user: int
    read_only: bool


def bound(workload: Manifest, *, name: str, node: str, ip: str) -> Manifest:
    """The pod that a Deployment or a DaemonSet would have made, scheduled to a node. It has the
    network of that node: no CNI gives it an address of its own.
    """
    template = workload["spec"]["template"]
    space = workload["metadata"]["namespace"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": name, "namespace": space},
        "spec": {**template["spec"], "nodeName": node, "hostNetwork": True},
        "status": {
            "phase": "Running",
            "hostIP": ip,
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def containers(pod: Manifest, api: tuple[str, int]) -> Iterator[Container]:
    """All of them; ``api`` is where the Kubernetes API is reached by those with a token."""
    spec = pod["spec"]
    user = spec.get("securityContext", {}).get("runAsUser", 0)
    inside = {"KUBERNETES_SERVICE_HOST": api[0], "KUBERNETES_SERVICE_PORT": str(api[1])}
    for each in spec["containers"]:
        env = {"PATH": PATH, "HOME": "/", **inside}
        env |= {it["name"]: _value(it, pod) for it in each.get("env", ())}
        argv = [_expanded(it, env) for it in (*each["command"], *each.get("args", ()))]
        mounts = [(it["mountPath"], it["name"]) for it in each.get("volumeMounts", ())]
        security = each.get("securityContext", {})
        yield Container(
            name=each["name"],
            argv=tuple(argv),
            env=env,
            mounts=tuple(mounts),
            user=user,
            read_only=security.get("readOnlyRootFilesystem", False),
        )


def _value(entry: Manifest, pod: Manifest) -> str:
    if "value" in entry:
        return str(entry["value"])
    found: Any = pod
    for step in entry["valueFrom"]["fieldRef"]["fieldPath"].split("."):
        found = found[step]
    return str(found)


def _expanded(argument: str, env: Mapping[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], argument)


def image() -> tuple[dict[str, tuple[str, int]], list[tuple[str, str]]]:
    """What is in our image, and etcd's: files (text, mode), and mounts of this checkout."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    files = {}
    for name, target in project["project"]["scripts"].items():
        module, _, function = target.partition(":")
        python = Path(sys.base_prefix, "bin/python3")
        text = (
            f"#!/bin/sh\nexport PYTHONPATH={SOURCE}:{SITE}\n"
            f'exec {python} -P -c "from {module} import {function}; {function}()" "$@"\n'
        )
        files[f"/usr/local/bin/{name}"] = (text, 0o755)
    files["/usr/local/bin/etcd"] = ('#!/bin/sh\nexec /usr/bin/etcd "$@"\n', 0o755)
    return files, [(SITE, sysconfig.get_path("purelib")), (SOURCE, str(PROJECT))]
