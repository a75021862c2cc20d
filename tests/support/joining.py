"""Two clusters that may join, each as a directory; and time that the test sets."""

from pathlib import Path

from clustermesh.meshfile import Cluster
from clustermesh.places.place import on_files
from clustermesh.trust.books import on_files as on_disk
from clustermesh.trust.guest import Guest
from clustermesh.trust.host import Host
from tests.support.trust import Pki, member

NOW = 1_800_000_000.0


class Clock:
    """Unix seconds that stand still."""

    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


class Pair:
    """Cluster b, which invites, and cluster a, which joins."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.clock = Clock()
        self.b = self.cluster("cluster-b", 2)
        self.a = self.cluster("cluster-a", 1)
        self.state = top / "cluster-b" / "state"

    def cluster(self, name: str, number: int) -> Cluster:
        return member(self.top / name, name, number, Pki(self.top / name / "pki", name))

    def host(self) -> Host:
        """A new one each time: nothing is remembered but by files."""
        books = on_disk(self.state)
        return Host(self.b, on_files(self.b), books, max_clusters=255, now=self.clock)

    def guest(self, text: str, cluster: Cluster | None = None) -> Guest:
        who = cluster or self.a
        return Guest(text, who, on_files(who), max_clusters=255, now=self.clock)

    def invite(self, guest: str = "cluster-a", life: float = 3600.0) -> str:
        addresses = ["127.0.0.1:1"]
        return self.host().invite(guest, life=life, addresses=addresses)[0]

    def files(self) -> dict[str, bytes]:
        paths = (path for path in self.top.rglob("*") if path.is_file())
        return {str(path.relative_to(self.top)): path.read_bytes() for path in paths}
