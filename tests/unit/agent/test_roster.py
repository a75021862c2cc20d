"""Names of clusters beside the maps."""

from pathlib import Path

from agent.roster import Roster


def test_names_last_until_they_are_struck(tmp_path: Path) -> None:
    roster = Roster(tmp_path / "clusters")
    assert roster.read() == {}
    roster.enter("paris", 7)
    roster.enter("lyon", 8)
    roster.enter("nice", 8)
    assert Roster(tmp_path / "clusters").read() == {7: "paris", 8: "nice"}
    roster.strike(8)
    roster.strike(8)
    assert roster.read() == {7: "paris"}


def test_names_of_clusters_that_were_removed_meanwhile_go(tmp_path: Path) -> None:
    roster = Roster(tmp_path)
    roster.enter("home", 1)
    roster.enter("paris", 7)
    roster.enter("lyon", 8)
    Roster(tmp_path).keep({"home", "lyon", "nice"})
    assert roster.read() == {1: "home", 8: "lyon"}


def test_a_cluster_with_a_new_id_has_lost_the_old_one(tmp_path: Path) -> None:
    roster = Roster(tmp_path)
    roster.enter("paris", 7)
    roster.enter("paris", 9)
    assert roster.read() == {9: "paris"}


def test_a_name_that_is_there_is_not_written(tmp_path: Path) -> None:
    roster = Roster(tmp_path)
    roster.enter("paris", 7)
    before = (tmp_path / "7").lstat().st_ino
    roster.enter("paris", 7)
    assert (tmp_path / "7").lstat().st_ino == before


def test_what_is_no_name_of_ours_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("")
    (tmp_path / "9").mkdir()
    (tmp_path / "7-new").symlink_to("torn")
    roster = Roster(tmp_path)
    roster.enter("paris", 7)
    roster.enter("odd", 9)  # something is in the way: said, and nothing worse
    assert roster.read() == {7: "paris"}
