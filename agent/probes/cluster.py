"""What the probes of one cluster gave."""

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec

from agent.probes.dialer import Answered
from agent.probes.targets import Targets
from agent.probes.verdict import Limits, Reach, Verdict

HALF_LIFE: Final = 0.2  # weight of the newest measurement in RTT and loss


class ProbeStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """GET /v1/probes: one remote cluster. ``loss`` is a share; ``rtt`` in seconds, if known."""

    cluster: str
    reach: Reach
    rtt: float | None
    loss: float
    nodes: int


class ClusterProbe:
    """Who may be asked, what was answered, and the verdict that follows."""

    def __init__(self, cluster: str, targets: Targets) -> None:
        self.cluster = cluster
        self.targets = targets
        self.number = number_of(cluster)
        self.verdict = Verdict()
        self.next = 0
        """The number of the time when it is asked as a matter of course."""
        self.asked = 0
        """How many answers are waited for."""
        self._answers: list[float | None] = []
        self._turn = 0
        self._rtt: float | None = None
        self._loss = 0.0

    @property
    def answers(self) -> bool:
        """Whether it is thought to answer."""
        return self.verdict.reach is Reach.ANSWERS

    @property
    def as_expected(self) -> bool:
        """Whether the round that has just ended is no news."""
        trusted = self.answers and not self.verdict.against
        return trusted and any(rtt is not None for rtt in self._answers)

    def choose(self, nodes: int) -> list[str]:
        """Whom to ask in a round: that begins now."""
        trusted = self.answers and not self.verdict.against
        chosen = self.targets.sample(1 if trusted else nodes, self._turn)
        self.asked = len(chosen)
        return chosen

    def hear(self, complete: "Callable[[ClusterProbe], None]") -> Answered:
        """What to call with an answer; ``complete`` is called after the last one of a round."""

        def answered(rtt: float | None) -> None:
            self._answers.append(rtt)
            self.asked -= 1
            if not self.asked:
                complete(self)

        return answered

    def learn(self, limits: Limits) -> bool:
        """The round has ended; whether it speaks against the verdict."""
        answers, self._answers = self._answers, []
        for rtt in answers:
            self._loss += HALF_LIFE * ((rtt is None) - self._loss)
            if rtt is not None:
                self._rtt = rtt if self._rtt is None else self._rtt + HALF_LIFE * (rtt - self._rtt)
        answered = any(rtt is not None for rtt in answers)
        if not answered:
            self._turn += 1  # others may answer
        self.verdict = self.verdict.after(answered=answered, limits=limits)
        return self.verdict.against > 0

    def status(self) -> ProbeStatus:
        """As the API shows it."""
        return ProbeStatus(
            cluster=self.cluster,
            reach=self.verdict.reach,
            rtt=self._rtt,
            loss=round(self._loss, 3),
            nodes=len(self.targets),
        )


def number_of(name: str) -> int:
    """Evenly spread over 32 bits, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
