"""Numbers of flavour core where this process alone gives them: recorded in a file."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from clustermesh.identities import Allocator, Assignment, FileRecord, RecordError
from clustermesh.identities.record import FILE_NAME
from clustermesh.keys import identity_range
from clustermesh.logs import get_logger
from clustermesh.process import Fault

log = get_logger()


class FileNumbers:
    """Gives numbers (``export.Numbers``) and has them recorded (``publication.Recorder``)."""

    def __init__(self, state_dir: Path, *, cluster_id: int, max_clusters: int) -> None:
        """Read the record. Raises ``Fault`` when that is impossible."""
        self._record = FileRecord(state_dir / FILE_NAME)
        self.allocator = Allocator(identity_range(cluster_id, max_clusters))
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
        self.allocator.restore(assignments)

    def number(self, label_text: str) -> int | None:
        """The number of these labels."""
        return self.allocator.number(label_text)

    def fresh(self) -> Sequence[Assignment]:
        """What was given since the last time."""
        return self.allocator.fresh()

    async def record(self, assignments: Sequence[Assignment]) -> None:
        """Write it down, in a thread: it waits for the disk. Raises ``OSError``."""
        await asyncio.to_thread(self._record.append, assignments)
