"""How meshctl ends when it cannot do what was asked: one sentence and an exit code."""

from enum import IntEnum

from clustermesh.errors import MeshError


class Exit(IntEnum):
    """Exit codes, the same for every command (``meshctl --help`` lists them)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_READY = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


class MeshctlError(MeshError):
    """The same with an exit code of its own."""

    def __init__(self, text: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(text)
        self.code = code
