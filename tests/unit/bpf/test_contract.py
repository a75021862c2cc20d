"""The maps that others read have the name, type, sizes, room and flags that contract datapath 1
gives. The table is written out: the code must agree with it, not with itself."""

import pytest

from bpf.maps import MapKind
from bpf.specs import MAPS, NO_PREALLOC, DatapathSettings

HASH, LRU, LPM = MapKind.HASH, MapKind.LRU_HASH, MapKind.LPM_TRIE
CONTRACT = [
    ("cilium_tunnel_map", HASH, 20, 20, 65536),
    ("cilium_ipcache", LPM, 24, 12, 512000),
    ("cilium_lb4_services_v2", HASH, 12, 12, 65536),
    ("cilium_lb6_services_v2", HASH, 24, 12, 65536),
    ("cilium_lb4_backends_v3", HASH, 4, 12, 65536),
    ("cilium_lb6_backends_v3", HASH, 4, 24, 65536),
    ("cilium_lb4_reverse_nat", HASH, 2, 6, 65536),
    ("cilium_lb6_reverse_nat", HASH, 2, 18, 65536),
    ("cilium_lb4_source_range", LPM, 12, 1, 65536),
    ("cilium_lb6_source_range", LPM, 24, 1, 65536),
    ("cilium_lb4_affinity", LRU, 16, 16, 65536),
    ("cilium_lb6_affinity", LRU, 24, 16, 65536),
    ("cilium_lb_affinity_match", HASH, 8, 1, 65536),
    ("cilium_lb4_maglev", MapKind.HASH_OF_MAPS, 2, 4, 65536),
    ("cilium_lb6_maglev", MapKind.HASH_OF_MAPS, 2, 4, 65536),
    ("cilium_lb4_reverse_sk", LRU, 16, 8, 262144),
    ("cilium_lb6_reverse_sk", LRU, 32, 20, 262144),
    ("cilium_metrics", MapKind.PERCPU_HASH, 8, 16, 1024),
]


@pytest.mark.parametrize(("name", "kind", "key", "value", "room"), CONTRACT)
def test_a_map_that_others_read_is_made_as_they_make_it(name, kind, key, value, room):
    (spec,) = (it for it in MAPS if it.name == name)
    assert (spec.kind, spec.key_size, spec.value_size) == (kind, key, value)
    assert spec.max_entries(DatapathSettings()) == room
    assert spec.flags == (0 if kind is LRU else NO_PREALLOC)
