"""Whether a user may do something, from the ClusterRoles and bindings in the store."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.support.kube.catalog import RBAC, Kind
from tests.support.kube.store import Manifest, Store

CLUSTER_ROLES = f"clusterroles.{RBAC}"
CLUSTER_BINDINGS = f"clusterrolebindings.{RBAC}"
ROLES = f"roles.{RBAC}"
BINDINGS = f"rolebindings.{RBAC}"


@dataclass(frozen=True)
class User:
    """Who asks."""

    name: str
    groups: frozenset[str] = frozenset()

    def is_in(self, subject: Manifest) -> bool:
        match subject["kind"]:
            case "User":
                return bool(subject["name"] == self.name)
            case "Group":
                return subject["name"] in self.groups
            case "ServiceAccount":
                account = f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
                return account == self.name
        return False


MASTERS = "system:masters"
ADMIN = User("admin", frozenset({MASTERS}))


def allowed(
    store: Store, user: User, verb: str, kind: Kind, part: str, name: str, space: str = ""
) -> bool:
    """The union of the rules of every role bound to the user, everywhere or in the namespace."""
    if MASTERS in user.groups:
        return True
    return any(_grants(rule, verb, kind, part, name) for rule in _rules(store, user, space))


def _rules(store: Store, user: User, space: str) -> Iterator[Manifest]:
    for where, bindings, roles in (
        ("", CLUSTER_BINDINGS, CLUSTER_ROLES),
        (space, BINDINGS, ROLES),
    ):
        for (held_in, _), binding in store.objects.get(bindings, {}).items():
            bound = any(user.is_in(each) for each in binding.get("subjects", []))
            role = store.objects.get(roles, {}).get((where, binding["roleRef"]["name"]))
            if held_in == where and bound and role:
                yield from role.get("rules", [])


def _grants(rule: Manifest, verb: str, kind: Kind, part: str, name: str) -> bool:
    resource = f"{kind.plural}/{part}" if part else kind.plural
    names = rule.get("resourceNames")
    return (
        bool({verb, "*"} & set(rule["verbs"]))
        and bool({kind.group, "*"} & set(rule.get("apiGroups", [])))
        and bool({resource, "*"} & set(rule.get("resources", [])))
        and (not names or name in names)
    )


def granted(roles: Iterable[Manifest]) -> set[tuple[str, str]]:
    """Every verb and resource of these roles, as the test API server notes what was used."""
    found: set[tuple[str, str]] = set()
    for role in roles:
        for rule in role["rules"]:
            for group, resource in itertools.product(rule["apiGroups"], rule["resources"]):
                plural, slash, part = resource.partition("/")
                title = (f"{plural}.{group}" if group else plural) + slash + part
                found |= {(verb, title) for verb in rule["verbs"]}
    return found
