"""When deletions of a cluster may be believed: its heartbeat is fresh and its config is there."""

import asyncio
from typing import Protocol

from kvstore.watch import Dated, Gate


class Heartbeat(Gate, Protocol):
    """A gate that may know its cluster to live, rather than not know it to be dead; ``doubtful``
    when there is reason to think that it was dead before we came."""

    def doubtful(self) -> bool: ...

    def proven(self) -> bool: ...

    async def prove(self) -> None: ...


class Held:
    """A gate that is open while ``heartbeat`` is and the cluster's config exists.

    Keys of a dead control plane vanish when their lease runs out. That is no news about pods and
    services, so it is held until somebody alive says so (design: the two truths).

    With ``proof`` what lists lack is not believed before the cluster has shown that it lives, nor
    are deletions when the beat that was found is old: for those who know facts from before they
    could hear its heartbeat. Its leases may run out just now.
    """

    def __init__(self, heartbeat: Heartbeat, *, proof: bool = False) -> None:
        self._heartbeat = heartbeat
        self._proof = proof
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
        return self.tells() and not self._doubtful()

    def tells(self) -> bool:
        """Whether a list that has been read may be called full: nobody is known to be dead."""
        return self._present.is_set() and self._heartbeat.open()

    def _doubtful(self) -> bool:
        return self._proof and self._heartbeat.doubtful()

    def since(self) -> int:
        """The revision of the sign of life that opened it; deletions before it are not news."""
        return self._dated.since() if self._dated else 0

    def proven(self) -> bool:
        """Whether what a list lacks may be believed to be gone."""
        return not self._proof or self._heartbeat.proven()

    async def prove(self) -> None:
        """Until it may."""
        if self._proof:
            await self._heartbeat.prove()

    async def wait(self) -> None:
        """Until it is open."""
        while not self.open():
            await self._present.wait()
            await self._heartbeat.wait()
            if self._doubtful():
                await self._heartbeat.prove()

    def reason(self) -> str:
        """A full sentence when it is closed, else empty."""
        if self.open():
            return ""
        what = "is silent" if self._present.is_set() else "has no cluster-config"
        return f"its control plane {what}; deletions are held until it speaks again"
