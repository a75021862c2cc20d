"""Chunks of a stream into whole lines, in time proportional to the bytes."""


class Lines:
    """Takes chunks as the network cut them, gives the lines they complete."""

    def __init__(self) -> None:
        """Nothing pending."""
        self._parts: list[bytes] = []
        self.pending = 0
        """Bytes of the unfinished line."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Lines that end within ``chunk``, without their line ends; empty lines are left out."""
        head, end, rest = chunk.partition(b"\n")
        if not end:
            self._hold(chunk)
            return []
        lines = [b"".join((*self._parts, head)), *rest.split(b"\n")]
        self._parts, self.pending = [], 0
        self._hold(lines.pop())
        return [line for line in lines if line.strip()]

    def _hold(self, part: bytes) -> None:
        if part:
            self._parts.append(part)
            self.pending += len(part)
