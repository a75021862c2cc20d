"""Names as Go's encoding/json takes them: in any case. And ``null``, which is the zero value."""

from collections.abc import Callable, Iterator, Mapping

from msgspec import inspect

Reading = Callable[[object], object]
Fold = Callable[[str], str]


def as_written(name: str) -> str:
    """Names differ that are not spelled the same."""
    return name


def reading(type_: inspect.Type, fold: Fold) -> Reading:
    """What gives a decoded document (dicts, lists, scalars) the names that ``type_`` has.

    Names are the same when ``fold`` makes them so; of two for one field the later one counts.
    Keys of maps are data and stay. Nulls are left out.
    """
    match type_:
        case inspect.StructType():
            return _struct({it.encode_name: reading(it.type, fold) for it in type_.fields}, fold)
        case inspect.DictType():
            return _map(reading(type_.value_type, fold))
        case inspect.ListType() | inspect.VarTupleType():
            return _list(reading(type_.item_type, fold), _zero(type_.item_type))
        case inspect.UnionType():
            known = [it for it in type_.types if not isinstance(it, inspect.NoneType)]
            return reading(known[0], fold) if len(known) == 1 else _plain
        case _:
            return _plain


def names_of(type_: inspect.Type) -> Iterator[str]:
    """The names of a struct's own fields; of anything else none."""
    if isinstance(type_, inspect.StructType):
        yield from (field.encode_name for field in type_.fields)


def tolerant_of(type_: inspect.Type) -> Iterator[type]:
    """The structs within ``type_`` (itself included) that take no notice of unknown fields."""
    match type_:
        case inspect.StructType():
            if not type_.forbid_unknown_fields:
                yield type_.cls
            for field in type_.fields:
                yield from tolerant_of(field.type)
        case inspect.DictType():
            yield from tolerant_of(type_.value_type)
        case inspect.ListType() | inspect.VarTupleType():
            yield from tolerant_of(type_.item_type)
        case inspect.UnionType():
            for one in type_.types:
                yield from tolerant_of(one)
        case _:
            return


def _plain(value: object) -> object:
    return value


def _struct(fields: Mapping[str, Reading], fold: Fold) -> Reading:
    folded = {fold(name): name for name in fields}

    def read(value: object) -> object:
        if not isinstance(value, dict):
            return value
        found: dict[str, object] = {}
        for key, item in value.items():
            name = key if key in fields else folded.get(fold(key), "")
            if name and item is not None:
                found[name] = fields[name](item)
        return found

    return read


def _map(items: Reading) -> Reading:
    def read(value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {key: items(item) for key, item in value.items() if item is not None}

    return read


def _zero(type_: inspect.Type) -> object:
    """What Go makes of a null among the items of a list."""
    match type_:
        case inspect.StructType() | inspect.DictType():
            return {}
        case inspect.StrType():
            return ""
        case _:
            return None


def _list(items: Reading, zero: object) -> Reading:
    def read(value: object) -> object:
        if not isinstance(value, list):
            return value
        return [items(zero if item is None else item) for item in value]

    return read
