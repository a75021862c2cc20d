"""Which cluster has which id, kept beside the maps, which know ids only.

One symbolic link for each cluster, named after the id and pointing at the name, in a folder on the
BPF file system: it lives and dies with the maps, whatever becomes of the state directory. Nothing
but weights and failover depends on it, and they only until the cluster itself has spoken.
"""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import structlog

log = structlog.get_logger()


class Roster:
    """Names by id, as an earlier run left them, and as they are kept for the next."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> dict[int, str]:
        """What an earlier run knew."""
        found = {}
        with suppress(OSError):
            for entry in self._folder.iterdir():
                if entry.name.isdecimal() and entry.is_symlink():
                    found[int(entry.name)] = str(entry.readlink())
        return found

    def enter(self, cluster: str, cluster_id: int) -> None:
        """The cluster has this id and no other. What is there already is not written."""
        entry = self._folder / str(cluster_id)
        with suppress(OSError):
            if str(entry.readlink()) == cluster:
                return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            new = self._folder / f"{cluster_id}-new"
            new.unlink(missing_ok=True)
            new.symlink_to(cluster)
            new.rename(entry)
        except OSError as error:
            log.warning("name of a cluster not kept", cluster=cluster, reason=error.strerror)
        for other, name in self.read().items():
            if name == cluster and other != cluster_id:
                self.strike(other)

    def keep(self, clusters: Collection[str]) -> None:
        """There are no clusters but these: others were removed while nobody listened."""
        for cluster_id, name in self.read().items():
            if name not in clusters:
                self.strike(cluster_id)

    def strike(self, cluster_id: int) -> None:
        """The id is nobody's any more."""
        with suppress(OSError):
            (self._folder / str(cluster_id)).unlink()
