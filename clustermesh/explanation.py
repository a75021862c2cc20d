"""One service explained by one node's agent: GET /v1/explain of an agent, as values."""

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """A row of docs/services.md that applies: the page's section, the condition, what follows."""

    section: str
    condition: str
    result: str


class Teller(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """A cluster that may offer backends, and how old its word is (seconds, None for unknown):
    ``fact_age`` that about this service, ``newest_fact_age`` that about anything.

    ``told_all``: it has told every service and every address once; ``not_used`` says why none of
    its backends may be used now.
    """

    cluster: str
    cluster_id: int = 0
    own: bool = False
    endpoints: int = 0
    told_all: bool = False
    connected: bool = False
    unconfirmed: bool = False
    fact_age: float | None = None
    newest_fact_age: float | None = None
    heartbeat_age: float | None = None
    not_used: str = ""


class Candidate(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """An endpoint under the service's name; ``why`` says what keeps it out when its weight is 0.

    ``share`` of new connections is between 0 and 1. ``id`` is the backend's in this node's maps, 0
    for none; ``slot`` its place there, 0 for none; ``entries`` how many of the selection table are
    its, and ``expected`` how many ought to be.
    """

    address: str
    cluster: str
    state: str
    weight: int = 0
    share: float = 0.0
    why: str = ""
    id: int = 0
    slot: int = 0
    entries: int = 0
    expected: int = 0


class Held(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What the kernel's maps hold for a frontend, read for this answer (contract datapath 1.3).

    ``count`` slots are selected, ``parked`` ones keep their connections only. ``table_size`` is 0
    without a selection table. ``reverse_nat`` is the address that replies seem to come from.
    """

    id: int
    count: int
    parked: int
    slots: int
    table_size: int
    reverse_nat: str


class FrontendStory(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One frontend (``ip:port/PROTO``): what ought to be and what is.

    ``wrong`` are sentences about the difference, empty when there is none.
    """

    frontend: str
    port_name: str = ""
    rows: tuple[Row, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    held: Held | None = None
    wrong: tuple[str, ...] = ()


class Explanation(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """A service as one node has it. ``found``: the node's own cluster has such a service.

    ``settled``: nothing waits to be written. ``waiting_for`` are clusters that have not told all.
    ``similar`` are names that come near, when there is no such service.
    """

    cluster: str
    node: str
    service: str
    found: bool = False
    headless: bool = False
    is_global: bool = False
    shared: bool = False
    affinity: str = ""
    session_affinity_seconds: int = 0
    internal_traffic_policy: str = ""
    annotations: dict[str, str] = {}
    refused: str = ""
    trouble: str = ""
    settled: bool = True
    waiting_for: tuple[str, ...] = ()
    tellers: tuple[Teller, ...] = ()
    frontends: tuple[FrontendStory, ...] = ()
    similar: tuple[str, ...] = ()
