"""A lab's file of its own state, and its lock."""

from pathlib import Path

import pytest

from clustermesh.lab.errors import LabError
from clustermesh.lab.paths import Paths
from clustermesh.lab.state import Phase, State, load, locked, running
from clustermesh.lab.topology import default_topology


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths("test", tmp_path / "labs")


def saved(paths: Paths, phase: Phase) -> State:
    paths.top.mkdir(parents=True)
    state = State(name="test", topology=default_topology(), phase=phase)
    state.save(paths)
    return state


def test_what_was_saved_is_loaded(paths: Paths):
    assert load(paths) is None
    state = saved(paths, Phase.UP)
    assert load(paths) == state
    assert running(paths) == state


def test_a_lab_that_is_not_up_is_refused_with_the_way_out(paths: Paths):
    with pytest.raises(LabError, match="meshctl lab up --name test"):
        running(paths)
    saved(paths, Phase.BUILDING)
    with pytest.raises(LabError, match="half built"):
        running(paths)


def test_a_torn_file_counts_as_none(paths: Paths):
    paths.top.mkdir(parents=True)
    paths.state.write_text('{"name": "te')
    assert load(paths) is None


def test_two_do_not_work_on_one_lab(paths: Paths):
    saved(paths, Phase.UP)
    with locked(paths), pytest.raises(LabError, match="another meshctl"), locked(paths):
        pass
    with locked(paths):
        pass


def test_the_lock_goes_away_with_the_lab(paths: Paths):
    with locked(paths):
        assert paths.lock.exists()
    assert not paths.lock.exists()
    assert not paths.root.exists()


def test_the_lock_of_a_lab_that_stays_stays(paths: Paths):
    saved(paths, Phase.UP)
    with locked(paths):
        pass
    assert paths.lock.exists()
