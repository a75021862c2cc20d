"""bpf(2): the commands we use, each one function over plain values. Raises OSError only."""

import ctypes
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_NUMBER: Final = _NUMBERS.get(platform.machine(), 321)
_libc: Final = ctypes.CDLL(None, use_errno=True)
_held: Final = ctypes.PyDLL(None, use_errno=True)
"""The same, without letting other threads go on meanwhile. For calls that take microseconds: who
lets go of the interpreter has to wait for it again, up to a whole turn of every other thread."""
for _library in (_libc, _held):
    _library.syscall.restype = ctypes.c_long
    # Without these, ctypes would pass the address as a 32-bit integer.
    _library.syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong]
SHORT_BATCH: Final = 256
"""Entries of a batch that takes well below a millisecond."""

MAP_CREATE: Final = 0
MAP_LOOKUP: Final = 1
MAP_UPDATE: Final = 2
MAP_DELETE: Final = 3
MAP_NEXT_KEY: Final = 4
OBJ_PIN: Final = 6
OBJ_GET: Final = 7
PROG_TEST_RUN: Final = 10
CHECKSUM_COMPLETE: Final = 1 << 2
"""Of a test run, from Linux 6.17."""
PROG_FD_BY_ID: Final = 13
PROG_QUERY: Final = 16
MAP_FD_BY_ID: Final = 14
OBJ_INFO: Final = 15
BATCH_LOOKUP: Final = 24
BATCH_UPDATE: Final = 26
BATCH_DELETE: Final = 27
LINK_CREATE: Final = 28
LINK_UPDATE: Final = 29
ENABLE_STATS: Final = 32
LINK_DETACH: Final = 34

ENOTSUPP: Final = 524  # kernel-internal, and yet what batch commands answer for some map types
QUERY_EFFECTIVE: Final = 1  # BPF_F_QUERY_EFFECTIVE: also what is attached further up
F_RDONLY: Final = 1 << 3  # BPF_F_RDONLY: this file descriptor may not write

_ELEMENT: Final = Struct("=i4xQQQ")
_BATCH: Final = Struct("=QQQQIiQQ")
_OBJECT: Final = Struct("=QII")
_CREATE: Final = Struct("=IIIIIII16s")
_INFO: Final = Struct("=IIQ")
_LINK: Final = Struct("=IIII")
_TEST_RUN: Final = Struct("=IIIIQQIIIIQQII")
_MAP_INFO: Final = Struct("=IIIIII16s")
_QUERY: Final = Struct("=IIIIQI4x")
_QUERY_COUNT: Final = Struct("=24xI")
_PROG_INFO: Final = Struct("=II8sIIQQQIIQ16s")
_PROG_RUNS: Final = Struct("=QQ")
_PROG_RUNS_AT: Final = 192
_LINK_INFO: Final = Struct("=III4xQI")


def address_of(data: bytes) -> int:
    """Where the bytes live; valid while the caller holds them, for the kernel to read only."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def call(command: int, attributes: ctypes.Array[ctypes.c_char], *, quick: bool = False) -> int:
    library = _held if quick else _libc
    result: int = library.syscall(_NUMBER, command, attributes, len(attributes))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _call(command: int, attributes: bytes, *, quick: bool = False) -> int:
    return call(command, ctypes.create_string_buffer(attributes, len(attributes)), quick=quick)


# --- maps -----------------------------------------------------------------------------------------


def map_create(
    kind: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    name: str = "",
    *,
    inner_fd: int = 0,
    quick: bool = False,
) -> int:
    """A new map's file descriptor. Object names have at most 15 characters: longer ones are cut."""
    sizes = (kind, key_size, value_size, max_entries)
    attributes = _CREATE.pack(*sizes, flags, inner_fd, 0, name.encode()[:15])
    return _call(MAP_CREATE, attributes, quick=quick)


def element(
    command: int, fd: int, key: int, value: int = 0, flags: int = 0, *, quick: bool = False
) -> int:
    """One of lookup, update, delete and next key; `key` and `value` are addresses. ``quick``: no
    other thread runs meanwhile, so never where the kernel waits, as it does for maps of maps."""
    return _call(command, _ELEMENT.pack(fd, key, value, flags), quick=quick)


def close(fd: int) -> None:
    """Quickly: of a map that something else holds, too."""
    _held.close(fd)


def batch(
    command: int,
    fd: int,
    *,
    keys: int,
    values: int = 0,
    count: int,
    cursor: int = 0,
    after: int = 0,
    quick: bool = False,
) -> tuple[int, OSError | None]:
    """A batch command: how many entries it did, and the error that ended it, if one did. ``quick``
    as for an element, where there are few."""
    attributes = ctypes.create_string_buffer(
        _BATCH.pack(cursor, after, keys, values, count, fd, 0, 0), _BATCH.size
    )
    error: OSError | None = None
    try:
        call(command, attributes, quick=quick and count <= SHORT_BATCH)
    except OSError as refused:
        error = refused
    return _BATCH.unpack(attributes.raw)[4], error


@dataclass(frozen=True, slots=True)
class MapInfo:
    kind: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


def _info(fd: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    _call(OBJ_INFO, _INFO.pack(fd, size, ctypes.addressof(buffer)))
    return buffer.raw


def map_info(fd: int) -> MapInfo:
    kind, number, key, value, room, flags, name = _MAP_INFO.unpack_from(_info(fd, 80))
    text = name.rstrip(b"\0").decode(errors="replace")
    return MapInfo(kind, number, key, value, room, flags, text)


def map_by_id(number: int) -> int:
    return _call(MAP_FD_BY_ID, number.to_bytes(4, "little") + bytes(8))


# --- programs and links --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    id: int
    tag: str
    name: str
    run_seconds: float
    runs: int


def program_info(fd: int) -> ProgramInfo:
    raw = _info(fd, 208)
    _, number, tag, *_, name = _PROG_INFO.unpack_from(raw)
    nanoseconds, runs = _PROG_RUNS.unpack_from(raw, _PROG_RUNS_AT)
    text = name.rstrip(b"\0").decode(errors="replace")
    return ProgramInfo(number, tag.hex(), text, nanoseconds / 1e9, runs)


def program_by_id(number: int) -> int:
    return _call(PROG_FD_BY_ID, number.to_bytes(4, "little") + bytes(8))


def programs_at(target: int, attach_type: int, most: int = 64) -> list[int]:
    """Ids of the programs that run at a hook of a control group (its file descriptor)."""
    ids = ctypes.create_string_buffer(4 * most)
    asked = _QUERY.pack(target, attach_type, QUERY_EFFECTIVE, 0, ctypes.addressof(ids), most)
    attributes = ctypes.create_string_buffer(asked, 64)
    call(PROG_QUERY, attributes)
    (count,) = _QUERY_COUNT.unpack_from(attributes.raw)
    return [int.from_bytes(ids.raw[at : at + 4], "little") for at in range(0, 4 * count, 4)]


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """`target` is an interface index (TCX) or a control group id; 0 when that is gone."""

    kind: int
    id: int
    program_id: int
    target: int
    attach_type: int


LINK_TCX: Final = 11


def link_info(fd: int) -> LinkInfo:
    kind, number, program_id, wide, attach_type = _LINK_INFO.unpack_from(_info(fd, 64))
    if kind == LINK_TCX:
        return LinkInfo(kind, number, program_id, wide & 0xFFFFFFFF, wide >> 32)
    return LinkInfo(kind, number, program_id, wide, attach_type)


def link_create(program_fd: int, target: int, attach_type: int, flags: int = 0) -> int:
    """`target` is a control group's file descriptor or an interface index."""
    return _call(LINK_CREATE, _LINK.pack(program_fd, target, attach_type, flags) + bytes(16))


def link_update(link_fd: int, program_fd: int) -> None:
    _call(LINK_UPDATE, _LINK.pack(link_fd, program_fd, 0, 0))


def link_detach(link_fd: int) -> None:
    _call(LINK_DETACH, link_fd.to_bytes(4, "little"))


def count_runs() -> int:
    """The kernel counts runs of programs, and their time, while this descriptor is open."""
    return _call(ENABLE_STATS, bytes(4))


def run_program(
    program_fd: int, packet: bytes, context: bytes = b"", *, repeat: int = 1, flags: int = 0
) -> tuple[int, bytes, bytes]:
    """Runs a program on a packet: its return value, the packet after it, the context after it.

    With ``CHECKSUM_COMPLETE`` the packet has a sum that a device has made, and the kernel refuses
    (EBADMSG) when it is not the packet's any more afterwards.
    """
    out = ctypes.create_string_buffer(len(packet) + 1024)
    context_out = ctypes.create_string_buffer(max(len(context), 1))
    attributes = ctypes.create_string_buffer(
        _TEST_RUN.pack(
            program_fd,
            0,
            len(packet),
            len(out),
            address_of(packet),
            ctypes.addressof(out),
            repeat,
            0,
            len(context),
            len(context),
            address_of(context) if context else 0,
            ctypes.addressof(context_out) if context else 0,
            flags,
            0,
        ),
        _TEST_RUN.size,
    )
    call(PROG_TEST_RUN, attributes)
    _, result, _, size, *_, context_size, _, _, _, _ = _TEST_RUN.unpack_from(attributes.raw)
    signed = result - (1 << 32) if result >= 1 << 31 else result
    return signed, out.raw[:size], context_out.raw[:context_size] if context else b""


# --- pins ----------------------------------------------------------------------------------------


def pin(fd: int, path: Path) -> None:
    name = os.fsencode(path)
    _call(OBJ_PIN, _OBJECT.pack(address_of(name), fd, 0))


def open_pin(path: Path, flags: int = 0) -> int:
    name = os.fsencode(path)
    return _call(OBJ_GET, _OBJECT.pack(address_of(name), 0, flags))
