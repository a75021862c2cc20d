"""Whether a user may do something, from the ClusterRoles and bindings in the store."""

from dataclasses import dataclass

from tests.support.kube.catalog import RBAC, Kind
from tests.support.kube.store import Manifest, Store

ROLES = f"clusterroles.{RBAC}"
BINDINGS = f"clusterrolebindings.{RBAC}"


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


def allowed(store: Store, user: User, verb: str, kind: Kind, part: str, name: str) -> bool:
    """The union of the rules of every role bound to the user."""
    if MASTERS in user.groups:
        return True
    roles = store.objects.get(ROLES, {})
    for binding in store.objects.get(BINDINGS, {}).values():
        role = roles.get(("", binding["roleRef"]["name"]))
        if not role or not any(user.is_in(each) for each in binding.get("subjects", [])):
            continue
        if any(_grants(rule, verb, kind, part, name) for rule in role.get("rules", [])):
            return True
    return False


def _grants(rule: Manifest, verb: str, kind: Kind, part: str, name: str) -> bool:
    resource = f"{kind.plural}/{part}" if part else kind.plural
    names = rule.get("resourceNames")
    return (
        bool({verb, "*"} & set(rule["verbs"]))
        and bool({kind.group, "*"} & set(rule.get("apiGroups", [])))
        and bool({resource, "*"} & set(rule.get("resources", [])))
        and (not names or name in names)
    )
