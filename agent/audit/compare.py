"""Where what is and what must be differ: every entry, by name, with a way to mend it [pure]."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from agent.audit.words import key_words, value_words
from clustermesh.audit import EXTRA, MISSING, WRONG, Difference


class Drift(NamedTuple):
    """One difference. To mend it an extra ``key`` is dropped; others get ``value``, or, where there
    is none, are for the agent to write, with all of ``what.service``.
    """

    what: Difference
    member: str
    key: bytes
    value: bytes | None = None

    @property
    def identity(self) -> tuple[str, bytes, str]:
        """The same difference, met again."""
        return self.member, self.key, self.what.kind


def drift(
    member: str, key: bytes, *, expected: str = "", found: str = "", service: str = "",
    value: bytes | None = None,
) -> Drift:  # fmt: skip
    """Missing when nothing was found, extra when nothing was expected, wrong otherwise."""
    kind = EXTRA if not expected else WRONG if found else MISSING
    told = Difference(
        map=member,
        kind=kind,
        key=key_words(member, key),
        expected=expected,
        found=found,
        service=service,
    )
    return Drift(told, member, key, value)


def entries(
    member: str, wanted: Mapping[bytes, bytes], found: Mapping[bytes, bytes]
) -> Iterator[Drift]:
    """A map whose every entry follows from the facts alone."""
    for key, value in wanted.items():
        has = found.get(key)
        if has != value:
            yield drift(
                member, key, expected=value_words(member, value),
                found="" if has is None else value_words(member, has), value=value,
            )  # fmt: skip
    for key in found.keys() - wanted.keys():
        yield drift(member, key, found=value_words(member, found[key]))


def lasting(before: Iterable[Drift], now: Iterable[Drift]) -> list[Drift]:
    """Differences that were there before and are there now, as they are now."""
    known = {it.identity for it in before}
    return [it for it in now if it.identity in known]
