"""The few functions of libbpf that turn an ELF object into loaded programs: only for loading."""

import ctypes
import importlib
import os
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Self

from bpf.errors import FeatureMissingError, LoadError

_LOG_LINES: Final = 40
_LONGEST_LOG: Final = 1 << 20  # a verifier's whole log comes in one piece
_WARNING: Final = 0
_log: Final[deque[str]] = deque(maxlen=_LOG_LINES)
_Pointer = ctypes.c_void_p
_PRINT: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, _Pointer)
_libc: Final = ctypes.CDLL(None)
_libc.vsnprintf.argtypes = [_Pointer, ctypes.c_size_t, ctypes.c_char_p, _Pointer]

_SIGNATURES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "libbpf_set_print": (_Pointer, [_PRINT]),
    "bpf_object__open_mem": (_Pointer, [ctypes.c_char_p, ctypes.c_size_t, _Pointer]),
    "bpf_object__load": (ctypes.c_int, [_Pointer]),
    "bpf_object__close": (None, [_Pointer]),
    "bpf_object__find_map_by_name": (_Pointer, [_Pointer, ctypes.c_char_p]),
    "bpf_object__find_program_by_name": (_Pointer, [_Pointer, ctypes.c_char_p]),
    "bpf_map__set_max_entries": (ctypes.c_int, [_Pointer, ctypes.c_uint]),
    "bpf_map__set_value_size": (ctypes.c_int, [_Pointer, ctypes.c_uint]),
    "bpf_map__inner_map": (_Pointer, [_Pointer]),
    "bpf_map__reuse_fd": (ctypes.c_int, [_Pointer, ctypes.c_int]),
    "bpf_map__set_initial_value": (ctypes.c_int, [_Pointer, ctypes.c_char_p, ctypes.c_size_t]),
    "bpf_map__fd": (ctypes.c_int, [_Pointer]),
    "bpf_program__fd": (ctypes.c_int, [_Pointer]),
    "libbpf_probe_bpf_helper": (ctypes.c_int, [ctypes.c_int, ctypes.c_int, _Pointer]),
    "libbpf_probe_bpf_map_type": (ctypes.c_int, [ctypes.c_int, _Pointer]),
}


def _remember(level: int, template: bytes, arguments: int) -> int:
    if level != _WARNING:
        return 0
    text = ctypes.create_string_buffer(_LONGEST_LOG)
    written: int = _libc.vsnprintf(text, len(text), template, arguments)
    _log.extend(text.value.decode(errors="replace").splitlines())
    return written


_print: Final = _PRINT(_remember)  # libbpf keeps its address: it must live as long as the process


def _candidates() -> list[Callable[[], ctypes.CDLL]]:
    def through_bcc() -> ctypes.CDLL:
        lib = importlib.import_module("bcc.libbcc").lib
        found: ctypes.CDLL = lib
        return found

    return [lambda: ctypes.CDLL("libbpf.so.1", use_errno=True), through_bcc]


@cache
def library() -> ctypes.CDLL:
    """libbpf itself, or the libbpf inside bcc: the same symbols."""
    for candidate in _candidates():
        try:
            found = candidate()
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(found, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, ImportError, AttributeError):
            continue
        found.libbpf_set_print(_print)
        return found
    raise FeatureMissingError("libbpf.so.1 is not installed: install the package libbpf1")


class _OpenOptions(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("object_name", ctypes.c_char_p))


class Object:
    """An ELF object on its way into the kernel. Leaving it as a context manager closes every
    descriptor that was not pinned or duplicated."""

    def __init__(self, name: str, image: bytes) -> None:
        self._lib = library()
        self._name = name
        _log.clear()
        options = _OpenOptions(ctypes.sizeof(_OpenOptions), name.encode())
        self._object = self._lib.bpf_object__open_mem(image, len(image), ctypes.byref(options))
        if not self._object:
            raise self._failed("could not be read")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lib.bpf_object__close(self._object)

    def _failed(self, what: str) -> LoadError:
        tail = "; ".join(line.strip() for line in list(_log)[-12:] if line.strip())
        return LoadError(
            f"the object {self._name} {what}: {tail or os.strerror(ctypes.get_errno())}"
        )

    def _check(self, result: int, what: str) -> None:
        if result < 0:
            raise self._failed(f"{what} ({os.strerror(-result)})")

    def _map(self, name: str) -> int:
        found: int | None = self._lib.bpf_object__find_map_by_name(self._object, name.encode())
        if not found:
            raise self._failed(f"has no map {name}")
        return found

    def set_room(self, name: str, entries: int) -> None:
        result = self._lib.bpf_map__set_max_entries(self._map(name), entries)
        self._check(result, f"refused the size of {name}")

    def set_inner_value_size(self, name: str, size: int) -> None:
        inner = self._lib.bpf_map__inner_map(self._map(name))
        result = self._lib.bpf_map__set_value_size(inner, size)
        self._check(result, f"refused the table size of {name}")

    def set_constants(self, value: bytes) -> None:
        """The whole of .rodata."""
        result = self._lib.bpf_map__set_initial_value(self._map(".rodata"), value, len(value))
        self._check(result, "refused its settings")

    def use_map(self, name: str, fd: int) -> None:
        """Takes an existing map in place of the one the object declares."""
        self._check(self._lib.bpf_map__reuse_fd(self._map(name), fd), f"refused the map {name}")

    def load(self) -> None:
        self._check(self._lib.bpf_object__load(self._object), "was refused by the kernel")

    def map_fd(self, name: str) -> int:
        """Belongs to the object."""
        fd: int = self._lib.bpf_map__fd(self._map(name))
        return fd

    def program_fd(self, name: str) -> int:
        """Belongs to the object."""
        program = self._lib.bpf_object__find_program_by_name(self._object, name.encode())
        if not program:
            raise self._failed(f"has no program {name}")
        fd: int = self._lib.bpf_program__fd(program)
        return fd
