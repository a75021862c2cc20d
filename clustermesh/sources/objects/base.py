"""What all Kubernetes objects have in common."""

import msgspec


class Wire(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Base: Kubernetes spells fields in camel case."""


class Meta(Wire, frozen=True, gc=False):
    """metav1.ObjectMeta. ``labels`` and ``annotations`` None: absent, which differs from empty."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
