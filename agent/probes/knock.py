"""POST /v1/knock: try connections from this node, the way a process on it would.

On the unix socket only: who may use it is root on the node, and could do the same with any tool.
"""

from typing import Final

from clustermesh import knocking
from clustermesh.findings import Knocked
from clustermesh.http import Query, Refused

MOST: Final = 64


async def knock(query: Query) -> list[Knocked]:
    """``targets``: ``10.0.0.1:80``, ``[fd00::1]:53/UDP``, commas between them."""
    if query.keys() != {"targets"}:
        raise Refused(400, "expected the member targets, and no other")
    try:
        targets = [knocking.target(one) for one in query["targets"].split(",") if one]
    except ValueError as error:
        raise Refused(400, f"targets: {error}") from None
    if not 0 < len(targets) <= MOST:
        raise Refused(400, f"targets: expected 1 to {MOST}")
    return await knocking.knock(targets)
