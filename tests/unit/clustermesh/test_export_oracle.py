"""Random objects are published as the rules say, which are written down a second time."""

import json

from hypothesis import given

from clustermesh.export import Exporter, ExportSettings, Flavour
from clustermesh.sources import objects
from clustermesh.sources.objects import ObjectKind
from tests.support.manifests import feed
from tests.support.rules import keys_of
from tests.support.worlds import Manifest, world


@given(world(Flavour.CILIUM, most=12))
def test_keys_and_values_are_those_of_the_rules(present: list[Manifest]) -> None:
    exporter = Exporter(ExportSettings(cluster="paris", cluster_id=7))
    feed(
        exporter,
        [objects.decode(ObjectKind(each["kind"]), json.dumps(each).encode()) for each in present],
    )
    ours = {
        key: value.decode()
        for key, value in exporter.wanted().items()
        if not key.startswith("clustermesh/local/")
    }
    assert ours == keys_of(present)
