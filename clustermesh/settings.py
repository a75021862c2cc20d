"""Settings of a process: one frozen struct, decoded from a YAML file, the environment and flags.

    class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
        cluster_name: Annotated[str, text("name of this cluster", pattern=...)]
        lease_ttl: Annotated[float, seconds("life of keys without us", ge=1)] = 900.0

    settings = load(Settings, argv, program="clustermesh-apiserver", summary="...")

- ``load(kind, argv, *, program, summary, env=os.environ) -> kind``; raises ``SettingsError``, whose
  text is one sentence, and ``SystemExit(0)`` after ``--help`` and ``--version``.
- ``about(help, *, ge, le)``, ``text(help, *, pattern)`` and ``seconds(help, *, ge, le)`` annotate a
  field; seconds may be written as a number or as ``15m``.
- A field ``cluster_name`` is ``--cluster-name``, ``CLUSTERMESH_CLUSTER_NAME`` and ``cluster-name:``
  in the file named by ``--config`` (or ``CLUSTERMESH_CONFIG``). Flags win over the environment,
  the environment over the file, the file over the default. Booleans also have ``--no-x``. A tuple
  is given as ``a,b`` in a flag and in the environment, as a list in the file. ``Literal`` fields
  offer a choice.
- Checks across fields go into ``__post_init__`` and raise ``ValueError`` with a sentence.
"""

import argparse
import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import msgspec
from msgspec.inspect import (
    BoolType,
    FloatType,
    IntType,
    LiteralType,
    Type,
    VarTupleType,
    type_info,
)

from clustermesh.version import VERSION

S = TypeVar("S", bound=msgspec.Struct)

ENVIRONMENT: Final = "CLUSTERMESH_"
UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
PLACES: Final = (
    f"A setting --some-thing is also read from the variable {ENVIRONMENT}SOME_THING, and as"
    " some-thing: from the file that --config names; a flag wins over the variable, the variable"
    " over the file. SECONDS may be written as 15m or 2m30s, a LIST as a,b."
)
DURATION: Final = re.compile(f"(?:{PART.pattern})+")


class SettingsError(ValueError):
    """A setting is missing or wrong; the text says which, where and what was expected."""


def about(help: str, *, ge: float | None = None, le: float | None = None) -> msgspec.Meta:
    """What ``--help`` says of a field, and the limits of a number."""
    return msgspec.Meta(description=help, ge=ge, le=le)


def text(help: str, *, pattern: str) -> msgspec.Meta:
    """As ``about``, for text of a certain form."""
    return msgspec.Meta(description=help, pattern=pattern)


def seconds(help: str, *, ge: float | None = None, le: float | None = None) -> msgspec.Meta:
    """As ``about``, for a length of time: a number of seconds, or text such as ``15m``."""
    return msgspec.Meta(description=help, ge=ge, le=le, extra={"unit": "seconds"})


class _Field(msgspec.Struct, frozen=True):
    """One setting, with the names it has in its three places."""

    name: str
    help: str
    required: bool
    default: object
    is_bool: bool
    is_list: bool
    is_time: bool
    is_number: bool
    choices: tuple[object, ...]

    @property
    def value(self) -> str:
        """What ``--help`` calls its value."""
        known = {"LIST": self.is_list, "SECONDS": self.is_time, "NUMBER": self.is_number}
        return next((word for word, fits in known.items() if fits), "VALUE")

    @property
    def flag(self) -> str:
        return "--" + self.name

    @property
    def variable(self) -> str:
        return ENVIRONMENT + self.name.upper().replace("-", "_")


def load(
    kind: type[S],
    argv: Sequence[str],
    *,
    program: str,
    summary: str,
    env: Mapping[str, str] = os.environ,
) -> S:
    """Settings from all their places; see the module's text."""
    fields = {field.name: field for field in _fields(kind)}
    parser = _parser(fields.values(), program=program, summary=summary)
    flags, left = parser.parse_known_args(argv)
    for word in left:
        raise SettingsError(_unexpected(word, [field.flag for field in fields.values()]))
    given = _given(vars(flags), env, fields)
    for field in fields.values():
        if field.required and field.name not in given:
            raise SettingsError(
                f"{field.flag} is required ({field.help}); it can also be set as {field.variable}, "
                f"or as {field.name} in the file named by --config"
            )
    values = {name: _read(fields[name], value, where) for name, (value, where) in given.items()}
    try:
        settings = msgspec.convert(values, kind, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise SettingsError(_sentence(error, given, fields)) from None
    _all_finite(settings, given)
    return settings


def _given(
    flags: dict[str, object], env: Mapping[str, str], fields: Mapping[str, _Field]
) -> dict[str, tuple[object, str]]:
    """Values with the place where each was written; a later place wins."""
    path = flags.pop("config", None) or env.get(ENVIRONMENT + "CONFIG")
    given = _from_file(Path(str(path)), fields) if path else {}
    given |= _from_environment(env, fields)
    return given | {name: (value, fields[name].flag) for name, value in flags.items()}


def _all_finite(settings: msgspec.Struct, given: Mapping[str, tuple[object, str]]) -> None:
    """What is no number passes every limit."""
    for name, (value, where) in given.items():
        number = getattr(settings, name.replace("-", "_"))
        if isinstance(number, float) and not math.isfinite(number):
            raise SettingsError(f"{where}: expected a number, found {value!r}")


def _fields(kind: type[msgspec.Struct]) -> Iterable[_Field]:
    for field in msgspec.structs.fields(kind):
        info = type_info(field.type)
        meta, bare = _meta(info), _bare(info)
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        yield _Field(
            name=field.encode_name,
            help=meta.get("description", ""),
            required=field.required,
            default=default,
            is_bool=isinstance(bare, BoolType),
            is_list=isinstance(bare, VarTupleType),
            is_time=meta.get("unit") == "seconds",
            is_number=isinstance(bare, IntType | FloatType),
            choices=tuple(bare.values) if isinstance(bare, LiteralType) else (),
        )


def _bare(info: Type) -> Type:
    return _bare(info.type) if isinstance(info, msgspec.inspect.Metadata) else info


def _meta(info: Type) -> dict[str, Any]:
    """Description and unit of an annotated type."""
    if not isinstance(info, msgspec.inspect.Metadata):
        return {}
    return {**(info.extra_json_schema or {}), **(info.extra or {})}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; --help lists the flags")


def _parser(fields: Iterable[_Field], *, program: str, summary: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        usage=f"{program} [--SETTING VALUE ...]",
        description=summary,
        epilog=PLACES,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--version", action="version", version=f"{program} {VERSION}")
    parser.add_argument("--config", metavar="FILE", help="settings file (YAML)")
    for field in fields:
        if field.is_bool:
            action = argparse.BooleanOptionalAction
            parser.add_argument(field.flag, dest=field.name, action=action, help=_words(field))
        else:
            metavar = field.value
            parser.add_argument(field.flag, dest=field.name, metavar=metavar, help=_words(field))
    return parser


def _words(field: _Field) -> str:
    words = field.help.replace("%", "%%")
    if field.choices:
        words += f"; one of {', '.join(map(str, field.choices))}"
    if field.required:
        return f"{words} (required)"
    if field.default in ("", None, (), False):
        return words
    return f"{words} (default: {_shown(field.default)})"


def _unexpected(word: str, flags: Sequence[str]) -> str:
    if not word.startswith("-"):
        return f"unexpected argument {word!r}; settings are flags, and --help lists them"
    flag = word.partition("=")[0]
    near = difflib.get_close_matches(flag, flags, n=1, cutoff=0.75)
    return f"unknown flag {flag}; " + (f"did you mean {near[0]}?" if near else "--help lists them")


def _shown(default: object) -> str:
    if isinstance(default, float):
        return f"{default:g}"
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _from_file(path: Path, fields: Mapping[str, _Field]) -> dict[str, tuple[object, str]]:
    import yaml

    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{path}{where}: not YAML; expected lines of `name: value`") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: expected a mapping of settings, found {_kind(content)}")
    for name in content:
        if name not in fields:
            raise SettingsError(f"{path}: unknown setting `{name}`{_nearest(str(name), fields)}")
    return {name: (value, f"{path}: {name}") for name, value in content.items()}


def _from_environment(
    env: Mapping[str, str], fields: Mapping[str, _Field]
) -> dict[str, tuple[object, str]]:
    """Variables of our prefix. Strangers are let pass: Kubernetes writes `CLUSTERMESH_..._PORT`
    for a Service of such a name, and our programs share the prefix. Misspellings are refused."""
    names = {field.variable: field.name for field in fields.values()}
    given: dict[str, tuple[object, str]] = {}
    for variable, value in env.items():
        if variable in names:
            given[names[variable]] = (value, variable)
        elif variable.startswith(ENVIRONMENT) and difflib.get_close_matches(
            variable, names, n=1, cutoff=0.93
        ):
            raise SettingsError(f"unknown variable {variable}{_nearest(variable, names)}")
    return given


def _read(field: _Field, value: object, where: str) -> object:
    """A value as its file, variable or flag spells it, made ready for msgspec."""
    if isinstance(value, str) and not value.isprintable():
        raise SettingsError(f"{where}: expected printable text in UTF-8")
    if field.is_list and isinstance(value, str):
        return [part for part in value.split(",") if part]
    if field.is_time and isinstance(value, str):
        try:
            return in_seconds(value)
        except ValueError as error:
            raise SettingsError(f"{where}: {error}") from None
    return value


def in_seconds(written: str) -> float:
    """``90``, ``1.5``, ``15m``, and ``2m30s`` as Go prints it. Raises ``ValueError``."""
    if DURATION.fullmatch(written):
        return sum(float(number) * UNITS[unit] for number, unit in PART.findall(written))
    with suppress(ValueError):
        return float(written)
    raise ValueError(f"expected seconds, or a number with ms, s, m or h, found {written!r}")


def _decode(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise ValueError("Expected a path")


def _sentence(
    error: msgspec.ValidationError,
    given: Mapping[str, tuple[object, str]],
    fields: Mapping[str, _Field],
) -> str:
    """msgspec's message with the place where the operator wrote the value, and the value."""
    message, _, path = str(error).partition(" - at `$.")
    name = re.split(r"[.\[`]", path)[0]
    if name not in given:
        return message
    value, where = given[name]
    expected, _, _ = message.partition(", got ")
    if choices := fields[name].choices:
        expected = f"expected one of {', '.join(map(str, choices))}"
    return f"{where}: {expected[:1].lower()}{expected[1:]}, found {value!r}"


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; known are {', '.join(sorted(names))}"


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else "text"
