"""What an API server answers instead of success, in the words and details of the real one.

Source: answers of kube-apiserver, recorded in tests/golden/kube-apiserver.json.
"""

from typing import Any

from tests.support.kube.catalog import Kind

WHY = ("for watch", "unless resourceVersion is provided")


class Refused(Exception):
    """An answer other than success, as a metav1.Status has it."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code, self.reason, self.details = code, reason, details


def nothing() -> Refused:
    return Refused(404, "NotFound", "the server could not find the requested resource")


def not_found(kind: Kind, name: str) -> Refused:
    return Refused(404, "NotFound", f'{kind.title} "{name}" not found', **_about(kind, name))


def exists(kind: Kind, name: str) -> Refused:
    text = f'{kind.title} "{name}" already exists'
    return Refused(409, "AlreadyExists", text, **_about(kind, name))


def modified(kind: Kind, name: str) -> Refused:
    text = (
        f'Operation cannot be fulfilled on {kind.title} "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    return Refused(409, "Conflict", text, **_about(kind, name))


def another(kind: Kind, name: str, what: str, wanted: str, found: str) -> Refused:
    """A precondition of a deletion does not hold."""
    title, became = {
        "uid": ("UID", "deleted and then recreated"),
        "resourceVersion": ("ResourceVersion", "modified"),
    }[what]
    type_ = f"{kind.name}.{kind.group}" if kind.group else kind.name
    text = (
        f'Operation cannot be fulfilled on {type_} "{name}": the {title} in the precondition '
        f"({wanted}) does not match the {title} in record ({found}). The object might have been "
        f"{became}"
    )
    return Refused(409, "Conflict", text, **{**_about(kind, name), "kind": kind.name})


def forbidden(user: str, verb: str, kind: Kind, part: str, name: str, space: str) -> Refused:
    what = f"{kind.plural}/{part}" if part else kind.plural
    object_ = f'{kind.title} "{name}"' if name else kind.title
    where = f'in the namespace "{space}"' if space else "at the cluster scope"
    text = (
        f'{object_} is forbidden: User "{user}" cannot {verb} resource "{what}" '
        f'in API group "{kind.group}" {where}'
    )
    return Refused(403, "Forbidden", text, **_about(kind, name))


def invalid(kind: Kind, name: str, faults: list[str]) -> Refused:
    """Each fault is ``field: what is wrong``."""
    type_ = f"{kind.name}.{kind.group}" if kind.group else kind.name
    told = faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"
    causes = [_cause(each) for each in faults]
    about = {**_about(kind, name), "kind": kind.name}
    return Refused(422, "Invalid", f'{type_} "{name}" is invalid: {told}', **about, causes=causes)


def unconditional(kind: Kind, name: str) -> Refused:
    """A kind that may only be replaced by who knows its version."""
    fault = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
    text = f'{kind.title} "{name}" is invalid: {fault}'
    return Refused(422, "Invalid", text, **_about(kind, name), causes=[_cause(fault)])


def bad(text: str) -> Refused:
    return Refused(400, "BadRequest", text)


def too_large(asked: int, known: int) -> Refused:
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    text = f"Timeout: Too large resource version: {asked}, current: {known}"
    return Refused(504, "Timeout", text, causes=[cause], retryAfterSeconds=1)


def no_streams() -> Refused:
    """A watch is to begin with what exists, and this server does not do that."""
    faults = [
        f"resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden {why}" for why in WHY
    ]
    text = f'ListOptions.meta.k8s.io "" is invalid: [{", ".join(faults)}]'
    causes = [_cause(each) for each in faults]
    return Refused(422, "Invalid", text, group="meta.k8s.io", kind="ListOptions", causes=causes)


def unknown_format() -> Refused:
    text = "the body of the request was in an unknown format - accepted media types include: "
    text += "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    return Refused(415, "UnsupportedMediaType", text)


def expired_page() -> Refused:
    return Refused(410, "Expired", "The provided continue parameter is too old")


def _about(kind: Kind, name: str) -> dict[str, str]:
    found = {"name": name, "group": kind.group, "kind": kind.plural}
    return {key: value for key, value in found.items() if value}


def _cause(fault: str) -> dict[str, str]:
    field, _, message = fault.partition(": ")
    known = {
        "Required": "FieldValueRequired",
        "Invalid": "FieldValueInvalid",
        "Unsupported": "FieldValueNotSupported",
        "Duplicate": "FieldValueDuplicate",
        "Forbidden": "FieldValueForbidden",
    }
    reason = known.get(message.split(" ")[0].rstrip(":"), "FieldValueInvalid")
    return {"reason": reason, "message": message, "field": field}
