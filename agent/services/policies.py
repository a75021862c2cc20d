"""The policy of each service of the own cluster: the last one that was understood.

A service whose annotations are refused keeps the policy it had, also over a restart of the agent:
what a good policy was made of is handed out for the next run (``on_good``) and taken back at its
start (``restore``).
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from agent.services import policy
from agent.services.policy import PLAIN, BadPolicy, Policy
from clustermesh.local import ANNOTATIONS, LocalService


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """What a policy follows from."""

    affinity: str
    annotations: dict[str, str]


_encoder: Final = msgspec.json.Encoder(order="deterministic")
_decoder: Final = msgspec.json.Decoder(Asked)


class Policies:
    """By service name (``namespace/name``). A service without annotations of ours has no entry."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._good: dict[str, Policy] = {}
        self._asked: dict[str, bytes] = {}
        """What each good policy was made of."""
        self.refused: dict[str, str] = {}
        """Why the annotations of a service are refused."""
        self.on_good: Callable[[str, bytes | None], None] = lambda _, __: None
        """Called with a service and what its good policy is made of, None for no policy, when
        that has changed."""

    def restore(self, saved: Mapping[str, bytes]) -> None:
        """What an earlier run handed out. What this release does not understand is left out."""
        for name, asked in saved.items():
            try:
                self._good[name] = self._parse(_decoder.decode(asked))
            except (BadPolicy, msgspec.MsgspecError):
                continue
            self._asked[name] = asked

    def put(self, name: str, service: LocalService) -> None:
        """What the service asks for now."""
        ours = {k: v for k, v in service.annotations.items() if k.startswith(ANNOTATIONS)}
        if not ours:
            self.drop(name)
            return
        asked = Asked(service.affinity, ours)
        try:
            self._good[name] = self._parse(asked)
        except BadPolicy as error:
            self.refused[name] = str(error)
            return
        self.refused.pop(name, None)
        self._remember(name, _encoder.encode(asked))

    def drop(self, name: str) -> None:
        """The service is gone, or asks for nothing."""
        self._good.pop(name, None)
        self.refused.pop(name, None)
        self._remember(name, None)

    def sweep(self, services: Collection[str]) -> None:
        """There are no services but these."""
        for name in tuple(self._good):
            if name not in services:
                self.drop(name)

    def of(self, name: str) -> Policy:
        """The one in use."""
        return self._good.get(name, PLAIN)

    def _parse(self, asked: Asked) -> Policy:
        return policy.parse(asked.annotations, affinity=asked.affinity, own=self._own)

    def _remember(self, name: str, asked: bytes | None) -> None:
        if self._asked.get(name) == asked:
            return
        if asked is None:
            del self._asked[name]
        else:
            self._asked[name] = asked
        self.on_good(name, asked)
