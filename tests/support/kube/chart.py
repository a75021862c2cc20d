"""The chart's permissions in an API server, for the ServiceAccount that the chart makes."""

from tests.support import helm
from tests.support.kube import manifests as make
from tests.support.kube.fake import FakeKube
from tests.support.kube.kubeserver import ACCOUNT, ACCOUNT_TOKEN, Kube
from tests.support.kube.rbac import granted


class Chart:
    """One rendering of the chart, in the namespace kube-system."""

    def __init__(self, kube: Kube, case: str) -> None:
        self._kube = kube
        _, objects = helm.golden(case)
        self._objects = [each for each in objects if each["apiVersion"].startswith("rbac.")]
        self.kubeconfig = kube.kubeconfig("chart", token=ACCOUNT_TOKEN)
        self.namespace = "kube-system"

    async def install(self) -> None:
        """Nothing but the roles and their bindings, as they are."""
        await self._kube.admin.apply(make.namespace(self.namespace), *self._objects)

    def unused(self) -> set[tuple[str, str]] | None:
        """Granted and never used so far; None where the server does not tell.

        A server that streams what there is in watches is not asked for lists: one stands for both.
        """
        if not isinstance(self._kube.server, FakeKube):
            return None
        used = {(verb, what) for user, verb, what in self._kube.server.api.used if user == ACCOUNT}
        used |= {("list", what) for verb, what in used if verb == "watch"}
        return granted(each for each in self._objects if "rules" in each) - used
