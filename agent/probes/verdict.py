"""From results of probes to a verdict on a cluster: slow to condemn, slow to trust again."""

from enum import StrEnum

import msgspec


class Reach(StrEnum):
    """What is known of a cluster's data plane."""

    UNKNOWN = "unknown"
    ANSWERS = "answers"
    SILENT = "silent"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Rounds in a row that change a verdict. In a failed round no node of the sample answered."""

    failed: int = 3
    succeeded: int = 2


class Verdict(msgspec.Struct, frozen=True):
    """The verdict on one cluster, and how many rounds in a row speak against it.

    A cluster that has never answered is not condemned: it may be one that drops probes.
    """

    reach: Reach = Reach.UNKNOWN
    against: int = 0

    def after(self, *, answered: bool, limits: Limits) -> "Verdict":
        """The verdict after another round. [pure]"""
        if self.reach is Reach.UNKNOWN:
            return Verdict(Reach.ANSWERS) if answered else self
        agrees = answered == (self.reach is Reach.ANSWERS)
        if agrees:
            return Verdict(self.reach)
        against = self.against + 1
        if self.reach is Reach.ANSWERS:
            return Verdict(Reach.SILENT) if against >= limits.failed else self._doubted(against)
        return Verdict(Reach.ANSWERS) if against >= limits.succeeded else self._doubted(against)

    def _doubted(self, against: int) -> "Verdict":
        return Verdict(self.reach, against)
