"""Users of a kubeconfig whose credentials a program prints."""

import sys
from pathlib import Path
from typing import Any


def plugin(folder: Path, source: str) -> dict[str, Any]:
    """A user of that kind; ``source`` makes ``status``, a dict, and knows ``folder``."""
    path = folder / "plugin.py"
    path.write_text(
        "import json, os, pathlib, sys, time\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        f"{source}\n"
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "print(json.dumps({'apiVersion': info['apiVersion'], 'kind': 'ExecCredential',"
        " 'status': status}))\n"
    )
    version = "client.authentication.k8s.io/v1"
    return {
        "command": sys.executable,
        "args": [str(path)],
        "apiVersion": version,
        "interactiveMode": "Never",
    }
