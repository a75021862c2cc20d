"""What a test makes go wrong inside the test API server, once or several times."""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Fault:
    """Strikes requests whose path and query contain ``where``, ``times`` times."""

    where: str
    times: int = 1
    status: int = 0
    """Answer with this instead."""
    retry_after: int = 0
    cut_after: int = -1
    """Bytes of the body after which the connection is torn down."""
    stall: bool = False
    """Accept, and never say anything."""
    body: bytes = b""
    """With ``status`` 200: send this as the whole body."""


@dataclass
class Faults:
    """Those that are waiting to strike, and how many did."""

    waiting: list[Fault] = field(default_factory=list)
    struck: int = 0

    def add(self, fault: Fault) -> None:
        self.waiting.append(fault)

    def strike(self, target: str) -> Fault | None:
        for fault in self._matching(target):
            fault.times -= 1
            self.struck += 1
            return fault
        return None

    def _matching(self, target: str) -> Iterator[Fault]:
        return (each for each in self.waiting if each.times and each.where in target)
