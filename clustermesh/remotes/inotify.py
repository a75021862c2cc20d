"""Waiting for a directory to change: inotify by way of libc, one descriptor, no thread."""

import asyncio
import ctypes
import os
from pathlib import Path
from typing import Final, Self

# linux/inotify.h: what can change the list of files or the content of one.
CHANGES: Final = (
    0x2  # IN_MODIFY
    | 0x4  # IN_ATTRIB
    | 0x8  # IN_CLOSE_WRITE
    | 0x40  # IN_MOVED_FROM
    | 0x80  # IN_MOVED_TO
    | 0x100  # IN_CREATE
    | 0x200  # IN_DELETE
    | 0x400  # IN_DELETE_SELF
    | 0x800  # IN_MOVE_SELF
)
FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
libc = ctypes.CDLL(None, use_errno=True)


class DirectoryWatch:
    """Whether a directory changed since this was made, or came to be.

    Make it, then read the directory, then wait: nothing falls in between.
    """

    def __init__(self, directory: Path) -> None:
        self._changed = asyncio.Event()
        self._fd = libc.inotify_init1(FLAGS)
        if self._fd < 0:
            return  # out of inotify instances: the caller's interval still holds
        for path in (directory, directory.parent):  # a directory that is not there may come
            if libc.inotify_add_watch(self._fd, os.fsencode(path), CHANGES) >= 0:
                break
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)

    async def within(self, seconds: float) -> bool:
        """Wait for a change, but no longer than that; whether there was one."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _read(self) -> None:
        try:
            os.read(self._fd, 65536)
        except BlockingIOError:
            return
        self._changed.set()
