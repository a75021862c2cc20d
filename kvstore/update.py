"""Writing only what is not so already (contract kvstore 1.4)."""

from kvstore.client import PutOp, Store


async def update_if_different(store: Store, op: PutOp) -> bool:
    """Put unless the key has this value and hangs on this lease; whether it was put.

    Raises ``Conflict`` when somebody else writes the key meanwhile: look again.
    """
    found = await store.get(op.key)
    if found is not None and (found.value, found.lease) == (op.value, op.lease):
        return False
    await store.swap(op, expected=found.revision if found else 0)
    return True
