"""Label and field selectors, as far as clients use them."""

import re
from collections.abc import Callable
from typing import Any

Test = Callable[[dict[str, str]], bool]
_SET = re.compile(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)")


def labels_match(selector: str, labels: dict[str, str] | None) -> bool:
    """``a=b,a!=b,a,!a,a in (x,y),a notin (x)``: all must hold."""
    return all(_label_test(part)(labels or {}) for part in _parts(selector))


def fields_match(selector: str, object_: dict[str, Any]) -> bool:
    """``status.phase!=Failed,metadata.name=x``: all must hold."""
    return all(_field_test(part, object_) for part in _parts(selector))


def field_names(selector: str) -> set[str]:
    """The fields that it names."""
    return {re.split(r"!=|==|=", part, maxsplit=1)[0] for part in _parts(selector)}


def _parts(selector: str) -> list[str]:
    return [part.strip() for part in re.split(r",(?![^(]*\))", selector) if part.strip()]


def _label_test(part: str) -> Test:
    if match := _SET.fullmatch(part):
        key, how, values = match[1], match[2], {each.strip() for each in match[3].split(",")}
        if how == "in":
            return lambda labels: key in labels and labels[key] in values
        return lambda labels: labels.get(key) not in values
    if "!=" in part:
        key, value = part.split("!=")
        return lambda labels: labels.get(key) != value
    if "=" in part:
        key, value = part.replace("==", "=").split("=")
        return lambda labels: labels.get(key) == value
    if part.startswith("!"):
        return lambda labels: part[1:] not in labels
    return lambda labels: part in labels


def _field_test(part: str, object_: dict[str, Any]) -> bool:
    key, how, value = re.split(r"(!=|==|=)", part, maxsplit=1)
    found: Any = object_
    for step in key.split("."):
        found = found.get(step, "") if isinstance(found, dict) else ""
    return (str(found or "") == value) != (how == "!=")
