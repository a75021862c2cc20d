"""One node's part of a packet's way: GET /v1/trace of an agent, as values. [pure]"""

import msgspec


class Looked(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What the node's ipcache says of an address, looked up as the programs do it.

    ``tunnel_endpoint`` is the node that it is behind, empty for none; ``labels`` are those that the
    identity's cluster has told. ``found`` False: there is no entry, and the rest is empty.
    """

    address: str
    found: bool = False
    identity: int = 0
    tunnel_endpoint: str = ""
    cluster: str = ""
    labels: tuple[str, ...] = ()


class Way(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """How the node's routes lead to an address; ``error`` when they do not."""

    device: str = ""
    table: int = 0
    gateway: str = ""
    source: str = ""
    mtu: int = 0
    error: str = ""


class Admitted(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What a node may send here over the overlay: identities from ``low`` to ``high``."""

    node: str
    found: bool = False
    cluster_id: int = 0
    low: int = 0
    high: int = 0


class Leg(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What one node would do with a packet. ``device`` is its overlay."""

    cluster: str
    node: str
    node_ip: str
    device: str
    source: Looked
    destination: Looked
    way: Way
    admitted: Admitted | None = None
