"""When deletions of a cluster may be believed: its heartbeat is fresh and its config is there."""

import asyncio

from kvstore.watch import Dated, Gate


class Held:
    """A gate that is open while ``heartbeat`` is and the cluster's config exists.

    Keys of a dead control plane vanish when their lease runs out. That is no news about pods and
    services, so it is held until somebody alive says so (design: the two truths).
    """

    def __init__(self, heartbeat: Gate) -> None:
        self._heartbeat = heartbeat
        self._dated = heartbeat if isinstance(heartbeat, Dated) else None
        self._present = asyncio.Event()
        self._present.set()

    def config_gone(self) -> None:
        """The cluster-config is missing."""
        self._present.clear()

    def config_present(self) -> None:
        """The cluster-config is there."""
        self._present.set()

    def open(self) -> bool:
        """Whether a deletion may be believed now."""
        return self._present.is_set() and self._heartbeat.open()

    def since(self) -> int:
        """The revision of the sign of life that opened it; deletions before it are not news."""
        return self._dated.since() if self._dated else 0

    async def wait(self) -> None:
        """Until it is open."""
        while not self.open():
            await self._present.wait()
            await self._heartbeat.wait()

    def reason(self) -> str:
        """A full sentence when it is closed, else empty."""
        if self.open():
            return ""
        what = "is silent" if self._present.is_set() else "has no cluster-config"
        return f"its control plane {what}; deletions are held until it speaks again"
