"""The last good policy of a service, over refusals and restarts."""

import pytest

from agent.services.policies import Policies
from agent.services.policy import PLAIN, WEIGHTS
from tests.support.mesh import OWN, service

GOOD = service(annotations={WEIGHTS: "local=0"})
BAD = service(annotations={WEIGHTS: "all"})


class Kept(dict[str, bytes]):
    """What would be on disk."""

    def policies(self) -> Policies:
        """Those of an agent that starts now."""
        policies = Policies(OWN)
        policies.restore(dict(self))
        policies.on_good = self.keep
        return policies

    def keep(self, name: str, asked: bytes | None) -> None:
        self.changes = getattr(self, "changes", 0) + 1
        if asked is None:
            del self[name]
        else:
            self[name] = asked


def test_a_refused_service_has_its_last_good_policy_also_after_a_restart() -> None:
    kept = Kept()
    kept.policies().put("shop/web", GOOD)
    for _ in range(2):
        again = kept.policies()
        again.put("shop/web", BAD)
        assert again.of("shop/web").weights == {"local": 0}
        assert "expected CLUSTER=NUMBER" in again.refused["shop/web"]


def test_what_is_said_again_is_not_written_again() -> None:
    kept = Kept()
    kept.policies().put("shop/web", GOOD)
    kept.policies().put("shop/web", GOOD)
    assert kept.changes == 1


@pytest.mark.parametrize("end", ["no annotations", "gone", "gone while nobody looked"])
def test_a_policy_ends_with_its_annotations_or_its_service(end: str) -> None:
    kept = Kept()
    policies = kept.policies()
    policies.put("shop/web", GOOD)
    if end == "no annotations":
        policies.put("shop/web", service())
    elif end == "gone":
        policies.drop("shop/web")
    else:
        kept.policies().sweep({"shop/other"})
    assert kept == {}


def test_what_is_not_understood_any_more_is_no_policy() -> None:
    kept = Kept()
    kept.policies().put("shop/web", GOOD)
    kept["shop/web"] = kept["shop/web"].replace(b"local=0", b"local=?")
    kept["shop/odd"] = b"{"
    policies = kept.policies()
    assert (policies.of("shop/web"), policies.of("shop/odd")) == (PLAIN, PLAIN)
