"""Loading twice changes nothing; what differs is refused, what is missing or dead is made anew."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bpf import syscalls
from bpf.datapath import load
from bpf.errors import AttachError, BpfError, PinMismatchError
from bpf.links import CGROUP_HOOKS
from bpf.maps import MapKind
from bpf.pins import cleanup
from bpf.specs import MAPS, OBJECTS, DatapathSettings
from tests.support.bpf import child_cgroup

pytestmark = pytest.mark.root


def ids(root: Path) -> dict[str, int]:
    """Every pin and the kernel's number of what it names."""
    found: dict[str, int] = {}
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        fd = syscalls.open_pin(path)
        kind = path.relative_to(root).parts[0]
        ask = {"maps": syscalls.map_info, "programs": syscalls.program_info}
        found[path.name] = ask.get(kind, syscalls.link_info)(fd).id
        os.close(fd)
    return found


@pytest.fixture
def cgroup():
    with child_cgroup(f"cm-test-{os.getpid()}") as folder:
        yield folder


def test_everything_is_pinned(root, settings, datapath, cgroup):
    assert datapath.attach_sock_lb(cgroup) is True
    wanted = {spec.name for spec in MAPS} | {name for names in OBJECTS.values() for name in names}
    assert set(ids(root)) == wanted | {f"sock_{hook}" for hook in CGROUP_HOOKS}


def test_loading_again_adopts_everything(root, settings, datapath, cgroup):
    datapath.attach_sock_lb(cgroup)
    datapath.state.configure(cluster_id=3, stale_after=5, mss=1410)
    datapath.maps.nodes.put_many([(bytes(4), bytes(16))])
    before = ids(root)
    with load(root, settings) as again:
        assert again.attach_sock_lb(cgroup) is False
        assert list(again.maps.nodes.items()) == [(bytes(4), bytes(16))]
        assert again.state.read() == datapath.state.read()
    assert ids(root) == before


RELOAD = """
import sys
from pathlib import Path
from bpf.datapath import load
from bpf.specs import DatapathSettings
with load(Path(sys.argv[1]), DatapathSettings.small()) as datapath:
    datapath.attach_sock_lb(Path(sys.argv[2]))
    datapath.state.configure(cluster_id=3, stale_after=5, mss=1410)
    datapath.state.stamp(1)
"""


def test_a_restart_only_opens_and_asks(root, settings, datapath, cgroup, tmp_path):
    datapath.attach_sock_lb(cgroup)
    trace = tmp_path / "trace"
    command = [sys.executable, "-c", RELOAD, str(root), str(cgroup)]
    subprocess.run(
        ["strace", "-f", "-e", "trace=bpf", "-o", str(trace), *command],
        check=True,
        cwd=Path(__file__).parents[3],
    )
    commands = set(re.findall(r"bpf\((\w+)", trace.read_text()))
    assert commands == {"BPF_OBJ_GET", "BPF_OBJ_GET_INFO_BY_FD"}


def test_every_difference_is_told_and_nothing_is_touched(root, settings, datapath):
    before = ids(root)
    other = replace(settings, ipcache=64, services=128, table_size=251)
    with pytest.raises(PinMismatchError) as refused:
        load(root, other)
    assert refused.value.differences == (
        "cilium_ipcache: room is 4096, configured 64",
        "cilium_lb4_services_v2: room is 4096, configured 128",
        "cilium_lb6_services_v2: room is 4096, configured 128",
        "cilium_lb4_source_range: room is 4096, configured 128",
        "cilium_lb6_source_range: room is 4096, configured 128",
        "selection tables: 1021 entries, configured 251",
    )
    assert ids(root) == before


def test_a_foreign_map_under_our_name_is_refused(root, settings):
    (root / "maps").mkdir(parents=True)
    fd = syscalls.map_create(MapKind.HASH, 4, 4, 4)
    syscalls.pin(fd, root / "maps" / "cm_state")
    os.close(fd)
    with pytest.raises(PinMismatchError, match="cm_state: type is 1, configured 2"):
        load(root, settings)


@pytest.mark.parametrize("lost", ["cilium_metrics", "cm_state", "cilium_lb4_maglev"])
def test_a_lost_map_is_made_and_programs_follow_it_without_a_gap(
    root, settings, datapath, cgroup, lost
):
    datapath.attach_sock_lb(cgroup)
    before = ids(root)
    (root / "maps" / lost).unlink()
    with load(root, settings) as again:
        assert again.attach_sock_lb(cgroup) is True
    after = ids(root)
    assert after[lost] != before[lost]
    assert after["cilium_ipcache"] == before["cilium_ipcache"]
    assert after["cm_connect4"] != before["cm_connect4"]
    assert after["sock_connect4"] == before["sock_connect4"]
    fd = syscalls.open_pin(root / "links" / "sock_connect4")
    assert syscalls.link_info(fd).program_id == after["cm_connect4"]
    os.close(fd)
    assert len(list((root / "programs").iterdir())) == 1


def test_a_crash_while_pinning_programs_is_mended(root, settings, datapath):
    version = next((root / "programs").iterdir())
    (version / "cm_connect4").unlink()
    with load(root, settings):
        assert (version / "cm_connect4").exists()


def test_links_of_a_removed_control_group_are_made_anew(root, settings, datapath):
    with child_cgroup(f"cm-test-{os.getpid()}-gone") as gone:
        datapath.attach_sock_lb(gone)
    with child_cgroup(f"cm-test-{os.getpid()}-new") as new:
        assert datapath.attach_sock_lb(new) is True
        assert datapath.attach_sock_lb(new) is False
        datapath.detach_sock_lb()
        assert attached(new) == set()


def attached(cgroup: Path) -> set[str]:
    shown = subprocess.run(
        ["bpftool", "cgroup", "show", str(cgroup)], check=True, capture_output=True, text=True
    )
    return set(re.findall(r"cm_\w+", shown.stdout))


def test_cleanup_detaches_and_removes_all(root, settings, datapath, cgroup):
    datapath.attach_sock_lb(cgroup)
    assert attached(cgroup) == set(OBJECTS["sock_lb"])
    cleanup(root)
    assert not root.exists()
    assert attached(cgroup) == set()
    cleanup(root)


def test_a_control_group_that_is_not_there_is_said(datapath, tmp_path):
    with pytest.raises(AttachError, match=r"cannot open the control group .*: No such file"):
        datapath.attach_sock_lb(tmp_path / "none")


def test_a_folder_that_is_no_control_group_is_said(datapath, tmp_path):
    with pytest.raises(AttachError, match="cannot attach sock_connect4: Bad file descriptor"):
        datapath.attach_sock_lb(tmp_path)


def test_a_device_that_is_not_there_is_said(datapath):
    with pytest.raises(AttachError, match=r"cannot attach .*: .*No such device"):  # TCX or clsact
        datapath.attach_overlay(999_999)


def test_a_folder_on_another_file_system_is_refused(tmp_path, settings):
    with pytest.raises(BpfError, match="ordinary is not on a BPF file system: mount one with"):
        load(tmp_path / "ordinary", settings)


def test_a_selection_table_has_the_configured_size(bpffs):
    settings = replace(DatapathSettings.small(), table_size=251)
    with load(bpffs / "clustermesh", settings) as datapath:
        datapath.maps.tables4.swap([b"\0\1"], bytes(251 * 4))
        assert datapath.maps.tables4.read(b"\0\1") == bytes(251 * 4)
        assert datapath.state.read().table_size == 251


def test_the_whole_tree_may_vanish_between_two_runs(root, settings, datapath):
    shutil.rmtree(root)
    with load(root, settings) as again:
        again.maps.nodes.put_many([(bytes(4), bytes(16))])
        assert list(datapath.maps.nodes.items()) == []


def test_a_closed_data_path_can_no_longer_write(datapath):
    datapath.close()
    with pytest.raises(BpfError, match="Bad file descriptor"):
        datapath.maps.nodes.put_many([(bytes(4), bytes(16))])
    with pytest.raises(ValueError, match="the state map is closed"):
        datapath.state.stamp(1)
    datapath.close()
