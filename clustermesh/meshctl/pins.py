"""Whose pinned maps are read: those of this machine, or of a node, by way of its agent's pod."""

from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from bpf.errors import BpfError
from clustermesh import pinned
from clustermesh.errors import NoAnswer
from clustermesh.meshfile import Node
from clustermesh.pinned import Entries

ROOT: Final = "/sys/fs/bpf"
PROGRAM: Final = "clustermesh-maps"


class Pins(Protocol):
    """The pins of one node."""

    def entries(self, path: Path) -> Entries:
        """A map's, by its path below the BPF file system. Raises ``OSError``, ``BpfError``, and
        ``NoAnswer`` where the node is another machine.
        """
        ...


class Here(NamedTuple):
    """This machine."""

    root: Path

    def entries(self, path: Path) -> Entries:
        return pinned.entries(self.root / path)


class InPod(NamedTuple):
    """The node of an agent; ``root`` as it is in its container."""

    agent: str
    root: Path

    def entries(self, path: Path) -> Entries:
        from clustermesh.meshctl.kube import pods

        said = pods.run(self.agent, (PROGRAM, str(self.root / path)))
        try:
            told = msgspec.json.decode(said, type=pinned.Told)
        except msgspec.MsgspecError as error:
            raise NoAnswer(f"{pods.spoken(self.agent)} gives no maps: {error}") from error
        if told.errno:
            raise OSError(told.errno, told.error)
        if told.error:
            raise BpfError(told.error)
        return told.entries


def of(node: Node) -> Pins:
    """By its pod, or here. Raises ``NoAnswer`` for a node that is neither."""
    root = Path(node.bpf_root or ROOT)
    if node.agent.startswith("kube:"):
        return InPod(node.agent, root)
    if node.bpf_root or node.agent.startswith("unix:"):
        return Here(root)
    raise NoAnswer("its maps are on another machine: run meshctl there")
