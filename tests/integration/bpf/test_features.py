"""This kernel is asked for what the programs need; a refusal to load names what is missing."""

import os

import pytest

from bpf import features
from bpf.errors import LoadError
from bpf.features import FEATURES, OLDEST_KERNEL, _helper
from bpf.libbpf import Object

pytestmark = pytest.mark.root


def running() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_a_kernel_that_should_have_a_feature_has_it(feature):
    assert running() >= OLDEST_KERNEL, "these tests need what they test"
    assert feature.present()


def test_a_helper_no_kernel_has_is_missing():
    assert not _helper(3, 100_000)()


def test_nothing_is_required_that_is_there():
    features.require()


def test_an_object_that_is_none_is_refused_with_a_reason():
    with pytest.raises(LoadError, match="the object nonsense could not be read"):
        Object("nonsense", b"this is no ELF object")
