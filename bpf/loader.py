"""Maps and programs: adopts what is pinned and right, makes what is missing, refuses the rest."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from struct import Struct
from typing import Final

from bpf import syscalls
from bpf.errors import PinMismatchError
from bpf.layout import StateValue
from bpf.libbpf import Object
from bpf.maps import MapKind
from bpf.pins import Pins, opened, pin
from bpf.specs import CORE, DatapathSettings, Part, differences
from bpf.state import State

_CONSTANTS: Final = Struct("=I4xQ")  # `settings` in lb.h
_WITH_CONSTANTS: Final = frozenset({"sock_lb", "lb"})
_NOTHING: Final[Mapping[str, int]] = {}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A part's maps and programs by name, as open descriptors that belong to it."""

    maps: dict[str, int]
    programs: dict[str, int]

    def close(self) -> None:
        """What is pinned goes on working."""
        for descriptors in (self.maps, self.programs):
            for fd in descriptors.values():
                os.close(fd)
            descriptors.clear()

    def counted(self) -> Iterator[syscalls.ProgramInfo]:
        """Its programs, with run counts and times while the kernel counts them
        (kernel.bpf_stats_enabled)."""
        for fd in self.programs.values():
            yield syscalls.program_info(fd)


def load_part(
    pins: Pins, settings: DatapathSettings, part: Part = CORE, core: Mapping[str, int] = _NOTHING
) -> Loaded:
    """What is pinned, or made and pinned now; ``core`` are the maps that its programs also use."""
    pins.prepare()
    loaded = Loaded(load_maps(pins, settings, part, core), {})
    try:
        loaded.programs.update(load_programs(pins, settings, {**core, **loaded.maps}, part))
    except BaseException:
        loaded.close()
        raise
    return loaded


def image(name: str) -> bytes:
    """A prebuilt object, as shipped."""
    return files("bpf").joinpath("obj", f"{name}.o").read_bytes()


def load_maps(
    pins: Pins,
    settings: DatapathSettings,
    part: Part = CORE,
    others: Mapping[str, int] = _NOTHING,
) -> dict[str, int]:
    """Every map of the part by name, as open descriptors; `others` are those that it takes from
    another one. PinMismatchError lists all differences."""
    with ExitStack() as undo:
        found: dict[str, int] = {}
        for spec in part.maps:
            fd = opened(pins.maps / spec.name)
            if fd is not None:
                undo.callback(os.close, fd)
                found[spec.name] = fd
        wrong = _wrong_pins(found, settings, part)
        if wrong:
            raise PinMismatchError(str(pins.root), wrong)
        if len(found) < len(part.maps):
            for name, fd in _make_maps(pins, settings, part, {**others, **found}).items():
                undo.callback(os.close, fd)
                found[name] = fd
        undo.pop_all()
    return found


def _wrong_pins(found: Mapping[str, int], settings: DatapathSettings, part: Part) -> list[str]:
    wrong = [
        difference
        for spec in part.maps
        if spec.name in found
        for difference in differences(spec, syscalls.map_info(found[spec.name]), settings)
    ]
    tables = _table_size(found)
    if tables not in (0, settings.table_size):
        wrong.append(f"selection tables: {tables} entries, configured {settings.table_size}")
    return wrong


def _table_size(found: Mapping[str, int]) -> int:
    """What the pinned tables were made with; 0 when none were made."""
    fd = found.get("cm_state")
    if fd is None or syscalls.map_info(fd).value_size != StateValue.FORMAT.size:
        return 0
    state = State(fd)
    size = state.read().table_size
    state.close()
    return size


def _make_maps(
    pins: Pins, settings: DatapathSettings, part: Part, present: Mapping[str, int]
) -> dict[str, int]:
    made: dict[str, int] = {}
    with Object(part.source, image(part.source)) as elf:
        for name, fd in present.items():
            elf.use_map(name, fd)
        for spec in part.maps:
            if spec.name in present:
                continue
            elf.set_room(spec.name, spec.max_entries(settings))
            if spec.kind is MapKind.HASH_OF_MAPS:
                elf.set_inner_value_size(spec.name, settings.table_size * 4)
        elf.load()
        for spec in part.maps:
            if spec.name not in present:
                made[spec.name] = os.dup(elf.map_fd(spec.name))
                pin(made[spec.name], pins.maps / spec.name)
    if "cm_state" in made:
        state = State(made["cm_state"])
        state.configure(table_size=settings.table_size)
        state.close()
    return made


def _constants(settings: DatapathSettings) -> bytes:
    return _CONSTANTS.pack(settings.table_size, settings.host_netns)


def version_of(maps: Mapping[str, int], settings: DatapathSettings, part: Part = CORE) -> str:
    """Names programs by all that decides them: their code, their constants and their maps."""
    digest = hashlib.sha256()
    for name in sorted(part.objects):
        digest.update(image(name))
    digest.update(_constants(settings))
    for name in sorted(maps):
        digest.update(f" {name}={syscalls.map_info(maps[name]).id}".encode())
    return digest.hexdigest()[:16]


def load_programs(
    pins: Pins, settings: DatapathSettings, maps: Mapping[str, int], part: Part = CORE
) -> dict[str, int]:
    """Every program by name, as open descriptors: the pinned ones if they are this version."""
    version = version_of(maps, settings, part)
    adopted = _adopt_programs(pins, version, part)
    if adopted is None:
        adopted = _make_programs(pins.programs(version), settings, maps, part)
    for old in list(pins.versions()):
        if old != version:
            pins.forget_programs(old)
    return adopted


def _adopt_programs(pins: Pins, version: str, part: Part) -> dict[str, int] | None:
    found: dict[str, int] = {}
    for names in part.objects.values():
        for name in names:
            fd = opened(pins.programs(version) / name)
            if fd is None:
                for other in found.values():
                    os.close(other)
                return None
            found[name] = fd
    return found


def _make_programs(
    folder: Path, settings: DatapathSettings, maps: Mapping[str, int], part: Part
) -> dict[str, int]:
    shutil.rmtree(folder, ignore_errors=True)  # a crash may have left some of them
    made: dict[str, int] = {}
    folder.mkdir()
    for name, programs in part.objects.items():
        with Object(name, image(name)) as elf:
            for map_name, fd in maps.items():
                elf.use_map(map_name, fd)
            if name in _WITH_CONSTANTS:
                elf.set_constants(_constants(settings))
            elf.load()
            for program in programs:
                made[program] = os.dup(elf.program_fd(program))
                pin(made[program], folder / program)
    return made
