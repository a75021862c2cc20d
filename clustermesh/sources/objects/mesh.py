"""Our own custom resources: clustermesh.io/v1alpha1."""

from clustermesh.sources.objects.base import Meta, Wire


class MeshIdentitySpec(Wire, frozen=True, gc=False):
    """Whose number it is: the labels as an identity's value spells them (contract kvstore 2.4)."""

    labels: str = ""


class MeshIdentity(Wire, frozen=True, gc=False):
    """The record of a number given in flavour core; its name is the number."""

    metadata: Meta
    spec: MeshIdentitySpec = MeshIdentitySpec()
