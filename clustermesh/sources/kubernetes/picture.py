"""Names that have been told of, so that what vanished during a gap becomes a removal."""


class Picture:
    """Mark before a listing, put what it names, sweep what it did not name."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._known: set[str] = set()
        self._unseen: set[str] = set()

    def __len__(self) -> int:
        """How many names are known."""
        return len(self._known)

    def mark(self) -> None:
        """A listing begins: everything known is in doubt."""
        self._unseen = set(self._known)

    def put(self, name: str) -> None:
        """It exists."""
        self._known.add(name)
        self._unseen.discard(name)

    def keep(self, name: str) -> None:
        """It exists but is not to be known: what is known of it stays, if anything is."""
        self._unseen.discard(name)

    def drop(self, name: str) -> bool:
        """It is gone; whether it had been known."""
        self._unseen.discard(name)
        if name not in self._known:
            return False
        self._known.remove(name)
        return True

    def sweep(self) -> list[str]:
        """The listing is complete: what it did not name, sorted."""
        gone = sorted(self._unseen)
        self._known.difference_update(gone)
        self._unseen = set()
        return gone
