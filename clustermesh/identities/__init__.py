"""Numbers for identities of flavour core: who gets which, and where that is written down."""

from clustermesh.identities.allocator import Allocator, Assignment
from clustermesh.identities.record import FileRecord, RecordError

__all__ = ["Allocator", "Assignment", "FileRecord", "RecordError"]
