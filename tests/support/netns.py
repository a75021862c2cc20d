"""A network namespace for a test, with nothing in it but loopback."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


class Namespace:
    """A named namespace; ``launcher`` starts a program in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.launcher = ("nsenter", f"--net=/run/netns/{name}")

    def run(self, *command: str) -> None:
        """Run a command in it."""
        subprocess.run([*self.launcher, *command], check=True, capture_output=True)

    def cut(self, port: int) -> None:
        """Packets to a TCP port vanish, without a word to anybody."""
        self.run("nft", "add table inet cut")
        self.run("nft", "add chain inet cut in { type filter hook input priority 0 ; }")
        self.run("nft", f"add rule inet cut in tcp dport {port} drop")

    def mend(self) -> None:
        self.run("nft", "delete table inet cut")


@contextmanager
def namespace(purpose: str) -> Iterator[Namespace]:
    """A namespace of this process's own; gone afterwards, whatever happened."""
    name = f"cm-{purpose}-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Namespace(name)
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
