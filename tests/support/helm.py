"""The chart rendered by Helm into files that a test can read without Helm.

``python -m tests.support.helm`` renders them anew; it needs ``helm`` on PATH.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/clustermesh"
GOLDEN = ROOT / "tests/golden/helm"
SECRET = "made by helm"  # noqa: S105 - stands for certificates and keys, which are never the same

Manifest = dict[str, Any]

CASES: Mapping[str, dict[str, Any]] = {
    "least": {"cluster": {"name": "paris", "id": 7}},
    "cilium": {
        "cluster": {"name": "paris", "id": 300, "maxConnectedClusters": 511},
        "apiserver": {
            "flavour": "cilium",
            "replicas": 2,
            "mcsApi": True,
            "globalNamespaces": False,
        },
        "agent": {"enabled": False},
        "peers": ["rome", "oslo"],
        "tls": {"auto": False},
    },
    "kvstoremesh": {
        "cluster": {"name": "paris", "id": 7},
        "apiserver": {"flavour": "core"},
        "kvstoremesh": {"enabled": True, "extraArgs": ["--clustermesh-cache-ttl=10m"]},
        "peers": ["rome"],
        "remotes": {"rome": {"endpoints": ["https://rome.mesh.cilium.io:2379"]}},
        "tls": {
            "issuerRef": {"kind": "ClusterIssuer", "name": "mesh"},
            "extraNames": ["paris.example.test"],
            "extraIPs": ["192.0.2.9"],
        },
    },
    "join": {
        "cluster": {"name": "paris", "id": 7},
        "apiserver": {"flavour": "core", "replicas": 2},
        "join": {"enabled": True, "from": ["192.0.2.0/24"]},
    },
    "joined": {
        "cluster": {"name": "paris", "id": 7},
        "apiserver": {"flavour": "core"},
        "kvstoremesh": {"enabled": True},
        "join": {"enabled": True, "listen": False},
        "peers": ["rome"],
    },
    "policy": {
        "cluster": {"name": "paris", "id": 7},
        "apiserver": {"flavour": "core"},
        "agent": {"enabled": False},
        "join": {"enabled": True, "networkPolicy": False},
    },
    "core": {
        "cluster": {"name": "paris", "id": 7},
        "apiserver": {
            "flavour": "core",
            "firstAddressIsOverlay": True,
            "extraArgs": ["--etcd-qps=50"],
            "service": {"type": "NodePort", "nodePort": 32379, "annotations": {"a": "b"}},
            "podAnnotations": {"c": "d"},
            "tolerations": [{"operator": "Exists"}],
        },
        "agent": {
            "kubeProxyReplacement": True,
            "etcd": {"ips": ["192.0.2.7"], "port": 32379},
            "lbDevices": ["eth0", "vmbr0"],
            "nodeSelector": {"mesh": "yes"},
        },
        "imagePullSecrets": [{"name": "pull"}],
        "remotes": {
            "rome": {"endpoints": ["https://rome.mesh.cilium.io:2379"], "ips": ["192.0.2.5"]},
            "oslo": {"endpoints": ["https://oslo.example.test:2379"]},
        },
    },
}


def fingerprint() -> str:
    """Changes with any file of the chart that rendering depends on."""
    digest = hashlib.sha256()
    for path in sorted((CHART / "templates").iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for name in ("Chart.yaml", "values.yaml"):
        digest.update((CHART / name).read_bytes())
    return digest.hexdigest()[:16]


def render(values: Mapping[str, Any]) -> list[Manifest]:
    """What Helm makes of the chart with these values."""
    done = subprocess.run(
        ["helm", "template", "clustermesh", CHART, "--namespace=kube-system", "--values=-"],
        input=yaml.safe_dump(dict(values)),
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(
        _documents(done.stdout), key=lambda each: (each["kind"], each["metadata"]["name"])
    )


def _documents(text: str) -> Iterator[Manifest]:
    for document in yaml.safe_load_all(text):
        if not isinstance(document, dict):
            continue
        if document["kind"] == "Secret" and "data" in document:
            document["data"] = dict.fromkeys(document["data"], SECRET)
        yield document


def golden(name: str) -> tuple[str, list[Manifest]]:
    """The fingerprint under which a case was rendered, and its objects."""
    text = (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")
    return text.splitlines()[0].removeprefix("# chart "), list(yaml.safe_load_all(text))


def main() -> None:
    for name, values in CASES.items():
        body = yaml.safe_dump_all(render(values), sort_keys=False, width=100)
        (GOLDEN / f"{name}.yaml").write_text(f"# chart {fingerprint()}\n{body}", encoding="utf-8")
        sys.stdout.write(f"rendered {name}\n")


if __name__ == "__main__":
    main()
