"""Numbers of flavour core: what gives them, and the one that records them in a file."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from clustermesh.export import ExportSettings
from clustermesh.identities import Allocator, Assignment, FileRecord, RecordError
from clustermesh.identities.record import FILE_NAME
from clustermesh.keys import identity_range
from clustermesh.logs import get_logger
from clustermesh.process import Fault

log = get_logger()


class Numbering(Protocol):
    """Gives numbers to labels (``export.Numbers``); its owner tells it whom to ask and to tell."""

    in_use: Callable[[int], bool]
    """Whether anything published refers to a number (``Exporter.has_identity``)."""
    decided: Callable[[Iterable[str]], None]
    """To be told of labels that waited and now have a number (``Publication.decided``)."""

    def number(self, label_text: str) -> int | None:
        """The number of these labels; None: not decided yet."""
        ...


class FileNumbers:
    """Where this process alone gives numbers, at once; recorded through ``Publication``."""

    def __init__(self, state_dir: Path, export: ExportSettings) -> None:
        """Read the record. Raises ``Fault`` when that is impossible."""
        self._record = FileRecord(state_dir / FILE_NAME)
        self.in_use: Callable[[int], bool] = lambda _number: False
        self.decided: Callable[[Iterable[str]], None] = lambda _labels: None
        numbers = identity_range(export.cluster_id, export.max_clusters)
        self._allocator = Allocator(numbers, in_use=self._is_in_use)
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            assignments, complaints = self._record.load()
        except RecordError as error:
            raise Fault(f"{error}; --state-dir names the directory") from None
        except OSError as error:
            raise Fault(
                f"cannot make the state directory {state_dir}: {error.strerror}; "
                f"choose another with --state-dir"
            ) from None
        for complaint in complaints:
            log.warning("identity record damaged", reason=complaint)
        self._allocator.restore(assignments)

    def number(self, label_text: str) -> int | None:
        """The number of these labels."""
        return self._allocator.number(label_text)

    def _is_in_use(self, number: int) -> bool:
        return self.in_use(number)

    def fresh(self) -> Sequence[Assignment]:
        """What was given since the last time."""
        return self._allocator.fresh()

    async def record(self, assignments: Sequence[Assignment]) -> None:
        """Write it down, in a thread: it waits for the disk. Raises ``OSError``."""
        await asyncio.to_thread(self._record.append, assignments)
