"""What can go wrong at the kernel edge, in few words; a message is a sentence for an operator."""

from collections.abc import Sequence


class BpfError(Exception):
    """The base of every error this package raises on purpose."""


class MapFullError(BpfError):
    """A map has no room left. `applied` entries of the batch were written before."""

    def __init__(self, name: str, max_entries: int, *, applied: int = 0) -> None:
        super().__init__(f"map {name} is full: it has room for {max_entries} entries")
        self.name = name
        self.applied = applied


class MapSizeError(BpfError, ValueError):
    """A key or a value does not have the size that the map's entries have."""

    def __init__(self, name: str, what: str, *, got: int, expected: int) -> None:
        super().__init__(f"map {name}: {what} of {got} bytes, expected {expected}")


class MapCallError(BpfError):
    """The kernel refused a map operation for a reason that is nobody's ordinary path."""

    def __init__(self, name: str, operation: str, error: OSError) -> None:
        super().__init__(f"map {name}: {operation} failed: {error.strerror or error}")
        self.errno = error.errno


class PinMismatchError(BpfError):
    """Pinned maps are not what this version needs. `differences` has one sentence for each."""

    def __init__(self, root: str, differences: Sequence[str]) -> None:
        listed = "; ".join(differences)
        super().__init__(
            f"the maps pinned under {root} differ from what is configured: {listed}. "
            "Use the sizes they were made with, or remove them with `meshctl cleanup` first"
        )
        self.differences = tuple(differences)


class LoadError(BpfError):
    """The kernel or libbpf refused an object; the message carries the end of its log."""


class AttachError(BpfError):
    """A program could not be attached to its device or control group."""


class FeatureMissingError(BpfError):
    """This machine lacks what the data path needs."""
