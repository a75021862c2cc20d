"""Reads the type information of a BPF object: sizes of structs, offsets of members, declared maps.

Format: the kernel's documentation of BTF; only what clang emits for us.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

_ELF_HEADER: Final = Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = Struct("<IIQQQQIIQQ")
_HEADER: Final = Struct("<HBBIIIII")
_MAGIC: Final = 0xEB9F
_TYPE: Final = Struct("<III")
_ARRAY: Final = Struct("<III")
_MEMBER: Final = Struct("<III")

_INT, _PTR, _ARRAY_KIND, _STRUCT, _UNION, _ENUM = 1, 2, 3, 4, 5, 6
_SECTION_KIND: Final = 15
_TRANSPARENT: Final = frozenset({8, 9, 10, 11, 18})  # typedef, volatile, const, restrict, type tag
_POINTER_SIZE: Final = 8


def _extra(kind: int, entries: int) -> int:
    """How many bytes follow a type of this kind."""
    fixed = {_INT: 4, _ARRAY_KIND: 12, 14: 4, 17: 4}
    per_entry = {_STRUCT: 12, _UNION: 12, _ENUM: 8, 13: 8, _SECTION_KIND: 12, 19: 12}
    return fixed.get(kind, 0) + per_entry.get(kind, 0) * entries


def section(image: bytes, name: str) -> bytes:
    """One section of an ELF object; KeyError when there is none of that name."""
    header = _ELF_HEADER.unpack_from(image)
    start, size, count, names_at = header[6], header[11], header[12], header[13]
    sections = [_SECTION.unpack_from(image, start + size * number) for number in range(count)]
    names = sections[names_at]
    for found in sections:
        if _text(image, names[4] + found[0]) == name:
            return image[found[4] : found[4] + found[5]]
    raise KeyError(name)


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode()


@dataclass(frozen=True, slots=True)
class Member:
    """Where a struct's member lies, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _Type:
    name: str
    kind: int
    size_or_type: int
    body: bytes = field(repr=False)


class Btf:
    """The types of one object."""

    def __init__(self, image: bytes) -> None:
        data = section(image, ".BTF")
        magic, _, _, header, types, types_size, texts, texts_size = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("this object has no type information in this machine's byte order")
        self._texts = data[header + texts : header + texts + texts_size]
        self._types = list(self._read(data[header + types : header + types + types_size]))

    def _read(self, data: bytes) -> Iterator[_Type]:
        yield _Type("void", 0, 0, b"")
        at = 0
        while at < len(data):
            name, info, last = _TYPE.unpack_from(data, at)
            at += _TYPE.size
            kind, entries = info >> 24 & 0x1F, info & 0xFFFF
            size = _extra(kind, entries)
            yield _Type(_text(self._texts, name), kind, last, data[at : at + size])
            at += size

    def _resolved(self, number: int) -> _Type:
        found = self._types[number]
        while found.kind in _TRANSPARENT:
            found = self._types[found.size_or_type]
        return found

    def _size(self, number: int) -> int:
        found = self._resolved(number)
        if found.kind == _PTR:
            return _POINTER_SIZE
        if found.kind == _ARRAY_KIND:
            element, _, count = _ARRAY.unpack(found.body)
            return self._size(element) * int(count)
        return found.size_or_type

    def _struct(self, name: str) -> _Type:
        for found in self._types:
            if found.kind == _STRUCT and found.name == name:
                return found
        raise KeyError(name)

    def size(self, struct: str) -> int:
        """Bytes of a struct; KeyError when the object does not use it."""
        return self._struct(struct).size_or_type

    def members(self, struct: str) -> dict[str, Member]:
        """The members by name, those of unnamed unions and structs included."""
        return dict(self._members(self._struct(struct), 0))

    def _members(self, struct: _Type, base: int) -> Iterator[tuple[str, Member]]:
        for name, number, bits in _MEMBER.iter_unpack(struct.body):
            offset = base + (bits & 0xFFFFFF) // 8
            text = _text(self._texts, name)
            if text:
                yield text, Member(offset, self._size(number))
            else:
                yield from self._members(self._resolved(number), offset)

    def maps(self) -> dict[str, Mapping[str, int]]:
        """The declared maps: name to type, key_size, value_size, max_entries and map_flags."""
        for found in self._types:
            if found.kind == _SECTION_KIND and found.name == ".maps":
                return {
                    variable.name: self._declared(self._resolved(variable.size_or_type))
                    for variable in (
                        self._types[number] for number, _, _ in _MEMBER.iter_unpack(found.body)
                    )
                }
        return {}

    def _declared(self, struct: _Type) -> Mapping[str, int]:
        """In a map's declaration a number is the length of an array, a type a pointer's target."""
        declared = {"map_flags": 0}
        for name, number, _ in _MEMBER.iter_unpack(struct.body):
            text, pointer = _text(self._texts, name), self._resolved(number)
            if pointer.kind != _PTR:
                continue  # the inner map of a map of maps
            target = self._resolved(pointer.size_or_type)
            if text in ("key", "value"):
                declared[f"{text}_size"] = self._size(pointer.size_or_type)
            elif target.kind == _ARRAY_KIND:
                declared[text] = _ARRAY.unpack(target.body)[2]
        return declared
