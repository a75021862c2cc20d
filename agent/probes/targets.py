"""The nodes of one cluster that may be asked. One more or less costs the same, however many."""


class Targets:
    """Addresses by node. ``offset``: where among them the first is; each asker has another, so that
    not all ask the same."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._names: list[str] = []
        self._addresses: list[str] = []
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._names)

    def put(self, node: str, address: str) -> None:
        """The node has this address; empty: it is none to be asked."""
        place = self._places.get(node)
        if place is not None and address:
            self._addresses[place] = address
        elif address:
            self._places[node] = len(self._names)
            self._names.append(node)
            self._addresses.append(address)
        elif place is not None:
            self._remove(node, place)

    def _remove(self, node: str, place: int) -> None:
        """The last one takes its place."""
        name, address = self._names.pop(), self._addresses.pop()
        if name != node:
            self._names[place], self._addresses[place] = name, address
            self._places[name] = place
        del self._places[node]

    def sample(self, size: int, turn: int) -> list[str]:
        """``size`` addresses, others at each turn until all had theirs."""
        count = len(self._addresses)
        if count <= size:
            return list(self._addresses)
        start = self._offset + turn * size
        return [self._addresses[(start + at) % count] for at in range(size)]
