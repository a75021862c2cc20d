"""The node's network, before and after the libraries that it needs have been loaded.

They take a tenth of a second to import, and the first map entry needs none of them.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from agent.audit.ways import Present
from agent.network.demand import Demand
from agent.settings import Settings

if TYPE_CHECKING:
    from agent.network.network import Network, Round


class Keeper:
    """Owner of the ``Network``. ``attach`` and ``report`` are its; see there."""

    def __init__(
        self,
        settings: Settings,
        *,
        attach: Callable[[int], bool],
        report: Callable[[str | None], None],
    ) -> None:
        self.demand = Demand()
        """What is asked of it; call ``asked`` when that is something else."""
        self.on_round: Callable[[], None] = lambda: None
        """Called after each comparison, whatever came of it."""
        self._settings = settings
        self._attach = attach
        self._report = report
        self._network: Network | None = None
        self._place = settings.place

    @property
    def ready(self) -> bool:
        """Whether what is asked of it will be looked at soon."""
        return self._network is not None

    @property
    def last(self) -> "Round | None":
        """What the last comparison found."""
        return self._network.last if self._network else None

    @property
    def lacking(self) -> Collection[str]:
        """Clusters with destinations that are wanted and were not compared yet."""
        return self.demand.lacking

    def asked(self) -> None:
        """The mesh may ask for something else now."""
        if self._network is not None:
            self._network.asked()

    async def run(self) -> None:
        """Load, then compare until cancelled."""
        await asyncio.to_thread(_load)
        from agent.network.network import Network

        self._network = Network(
            self._place,
            self.demand,
            attach=self._attach,
            report=self._report,
            interval=self._settings.network_interval,
            settle=self._settings.network_settle,
        )
        self._network.on_round = self.on_round
        await self._network.run()

    # -- for an audit -----------------------------------------------------------------------------

    def read(self) -> Present | None:
        """Routes as the kernel has them now; blocks. None before any was asked for."""
        if self._network is None or self.lacking:
            return None
        from agent.audit import routes

        return routes.read(self._place)

    def mend(self) -> None:
        """Compare again, soon."""
        if self._network is not None:
            self._network.again()


def _load() -> None:
    import agent.network.network

    _ = agent.network.network
