"""What the API server serves: which flavour of cluster it is, which version of a kind it has."""

import contextlib
from typing import Protocol

import msgspec

from clustermesh.sources.kubernetes.failures import Forbidden, Missing, Unreachable
from clustermesh.sources.kubernetes.resources import (
    SIGNS_OF_CILIUM,
    Flavour,
    Resource,
    Served,
    group_path,
)


class Getter(Protocol):
    """A read of one path."""

    async def get(self, path: str) -> bytes:
        """The body; raises an ``ApiFailure``."""
        ...


class _Named(msgspec.Struct):
    name: str


class _ResourceList(msgspec.Struct):
    resources: list[_Named] = []


_lists = msgspec.json.Decoder(_ResourceList)


async def serves(api: Getter, resource: Resource) -> Served | None:
    """The resource in the first of its versions that the server has. Raises an ``ApiFailure``."""
    if "." not in resource.group:  # core: every server has it
        return resource.at(resource.versions[0])
    for version in resource.versions:
        try:
            body = await api.get(group_path(resource.group, version))
            names = {each.name for each in _lists.decode(body).resources}
        except Missing:
            continue
        except msgspec.MsgspecError:
            raise Unreachable(f"the API server's list of {resource.group} is unreadable") from None
        if resource.plural in names:
            return resource.at(version)
    await _ready(api)
    return None


async def _ready(api: Getter) -> None:
    """A server that has just started does not know its custom kinds yet: absence means nothing."""
    with contextlib.suppress(Forbidden, Missing):  # locked down, or older than the path
        await api.get("/readyz")


async def flavour(api: Getter) -> Flavour:
    """``cilium`` where the Cilium kinds are served, else ``core``. Raises an ``ApiFailure``."""
    for resource in SIGNS_OF_CILIUM:
        if await serves(api, resource) is None:
            return Flavour.CORE
    return Flavour.CILIUM
