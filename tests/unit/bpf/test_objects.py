"""The shipped objects are what the sources build to, and declare the maps we expect."""

import re
import subprocess
from dataclasses import fields

import pytest

from bpf import build
from bpf.btf import Btf, section
from bpf.datapath import maps_in_memory
from bpf.loader import image
from bpf.maps import MapKind
from bpf.specs import BALANCER, CORE, MAPS, DatapathSettings, MapSpec, differences
from bpf.syscalls import MapInfo


def test_the_compiler_is_the_pinned_one():
    words = subprocess.run(["clang", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"clang version (\d+)\.", words.stdout)
    assert found
    assert int(found[1]) == build.CLANG_MAJOR


def test_the_shipped_objects_are_what_the_sources_build_to(tmp_path):
    build.compile_to(tmp_path)
    named = [name for part in (CORE, BALANCER) for name in (part.source, *part.objects)]
    assert build.names() == sorted(named)
    for name in build.names():
        assert (tmp_path / f"{name}.o").read_bytes() == image(name), (
            f"run python -m bpf.build: {name}"
        )


@pytest.mark.parametrize("name", build.names())
def test_an_object_names_no_place_on_the_machine_that_built_it(name):
    texts = image(name)
    assert b"/home/" not in texts
    assert str(build.PACKAGE).encode() not in texts
    assert b"/usr/" not in texts


@pytest.mark.parametrize("name", build.names())
def test_every_map_is_declared_as_the_loader_makes_it(name):
    defaults = DatapathSettings()
    balances = name in (BALANCER.source, *BALANCER.objects)
    declared = Btf(image(name)).maps()
    assert declared == {
        spec.name: {
            "type": spec.kind,
            "key_size": spec.key_size,
            "value_size": spec.value_size,
            "max_entries": spec.max_entries(defaults),
            "map_flags": spec.flags,
        }
        for spec in (*MAPS, *(BALANCER.maps if balances else ()))
    }


def test_reading_a_section_that_is_not_there_names_it():
    with pytest.raises(KeyError, match="nowhere"):
        section(image("maps"), "nowhere")


SPEC = MapSpec("ipcache", "cilium_ipcache", MapKind.LPM_TRIE, 24, 12, "ipcache")


def info(**changes: int) -> MapInfo:
    right = {"kind": 11, "id": 5, "key_size": 24, "value_size": 12, "max_entries": 4096, "flags": 1}
    return MapInfo(**{**right, **changes}, name="cilium_ipcache")


def test_a_map_with_the_right_shape_does_not_differ():
    assert list(differences(SPEC, info(), DatapathSettings.small())) == []


def test_every_difference_of_a_pinned_map_is_told():
    wrong = info(kind=1, key_size=20, value_size=24, max_entries=64, flags=0)
    assert list(differences(SPEC, wrong, DatapathSettings.small())) == [
        "cilium_ipcache: type is 1, configured 11",
        "cilium_ipcache: key size is 20, configured 24",
        "cilium_ipcache: value size is 24, configured 12",
        "cilium_ipcache: room is 64, configured 4096",
        "cilium_ipcache: flags is 0, configured 1",
    ]


def test_a_table_size_that_is_no_prime_of_the_contract_is_refused():
    with pytest.raises(ValueError, match="table_size: one of 251, 509, 1021"):
        DatapathSettings(table_size=1000)


def test_maps_in_memory_are_the_maps_of_a_node():
    maps = maps_in_memory()
    named = {field.name: getattr(getattr(maps, field.name), "name", None) for field in fields(maps)}
    wanted = {spec.member: spec.name for spec in MAPS if spec.member}
    assert named == {**wanted, "metrics": None}
