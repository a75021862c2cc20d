"""Two who change the list of users at once, on files and in objects: nobody's change is lost."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clustermesh.pki import Authority
from clustermesh.places.connection import Connection, Object
from clustermesh.places.objects import ObjectShelf
from clustermesh.places.place import Place
from clustermesh.places.shelf import Folder, Shelf, Taken
from clustermesh.trust import issuing, users

NAME = "users.yaml"


class Kept(Connection):
    """An API server's objects, with their versions."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.version = 0

    def get(self, path: str) -> Object | None:
        return copy.deepcopy(self.objects.get(path))

    def create(self, path: str, body: Object) -> None:
        path = f"{path}/{body['metadata']['name']}"
        if path in self.objects:
            raise Taken("it is there already.")
        self._store(path, body)

    def replace(self, path: str, body: Object) -> None:
        if body["metadata"]["resourceVersion"] != self.objects[path]["metadata"]["resourceVersion"]:
            raise Taken("it has been changed.")
        self._store(path, body)

    def _store(self, path: str, body: Object) -> None:
        self.version += 1
        metadata = {**body["metadata"], "resourceVersion": str(self.version)}
        self.objects[path] = {**body, "metadata": metadata}


class Meddled:
    """A shelf where somebody else comes between the next read and what is done with it."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.between: list[Callable[[], object]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._shelf, name)

    def read(self, name: str) -> bytes:
        held = self._shelf.read(name)
        if self.between:
            self.between.pop()()
        return held


@pytest.fixture(params=["files", "ConfigMap", "Secret"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    if request.param == "files":
        return Folder(tmp_path)
    return ObjectShelf(Kept(), request.param, "kube-system", "it")


@pytest.fixture
def theirs(shelf: Shelf) -> Place:
    return place(shelf)


def place(shelf: Shelf) -> Place:
    return Place(shelf, shelf, NAME, lambda: Authority.create("cluster-b"))


def names(at: Place) -> set[str]:
    return {user.name for user in users.read(at)}


def test_who_is_added_and_removed(theirs: Place):
    assert users.add(theirs, "remote-a")
    assert not users.add(theirs, "remote-a")
    assert users.has(theirs, "remote-a")
    assert users.remove(theirs, "remote-a")
    assert not users.remove(theirs, "remote-a")
    assert names(theirs) == set()


def test_a_revocation_is_not_undone_by_who_joins_meanwhile(shelf: Shelf, theirs: Place):
    users.add(theirs, "remote-old")
    meddled = Meddled(shelf)
    meddled.between = [lambda: users.remove(theirs, "remote-old")]
    assert users.add(place(meddled), "remote-new")  # type: ignore[arg-type]  # all else is the shelf's
    assert names(theirs) == {"remote-new"}


def test_a_join_is_not_undone_by_a_revocation(shelf: Shelf, theirs: Place):
    users.add(theirs, "remote-old")
    meddled = Meddled(shelf)
    meddled.between = [lambda: users.add(theirs, "remote-new")]
    assert users.remove(place(meddled), "remote-old")  # type: ignore[arg-type]  # as above
    assert names(theirs) == {"remote-new"}


def test_two_are_the_first_to_join(shelf: Shelf, theirs: Place):
    meddled = Meddled(shelf)
    meddled.between = [lambda: users.add(theirs, "remote-a")]
    assert users.add(place(meddled), "remote-b")  # type: ignore[arg-type]  # as above
    assert names(theirs) == {"remote-a", "remote-b"}


def test_who_never_gets_a_turn_says_so(shelf: Shelf, theirs: Place):
    meddled = Meddled(shelf)
    meddled.between = [
        lambda n=n: users.add(theirs, f"remote-{n}")  # type: ignore[misc]  # the default binds
        for n in range(users.TRIES)
    ]
    with pytest.raises(Taken, match="try again"):
        users.add(place(meddled), "remote-b")  # type: ignore[arg-type]  # as above
    assert len(names(theirs)) == users.TRIES


def test_whom_the_chart_names_is_let_in_once(shelf: Shelf, theirs: Place):
    users.begin(theirs, ())
    assert shelf.read(NAME) == b"users: []\n", "an empty list is a list"
    users.add(theirs, "remote-joined")
    users.begin(theirs, ("remote-a", "remote-b"))
    assert names(theirs) == {"remote-joined", "remote-a", "remote-b"}
    users.remove(theirs, "remote-a")
    users.begin(theirs, ("remote-a", "remote-b"))
    assert names(theirs) == {"remote-joined", "remote-b"}, "revoked, so it stays out"
    users.begin(theirs, ("remote-b",))
    users.begin(theirs, ("remote-a", "remote-b"))
    assert names(theirs) == {"remote-joined", "remote-a", "remote-b"}, "named anew"


def test_many_threads_on_files(tmp_path: Path):
    wanted = {f"remote-{n}" for n in range(4)}
    with ThreadPoolExecutor(len(wanted)) as pool:
        list(pool.map(lambda name: users.add(place(Folder(tmp_path)), name), wanted))
    assert names(place(Folder(tmp_path))) == wanted


def test_two_who_make_a_key_get_the_same(shelf: Shelf):
    meddled, first = Meddled(shelf), []
    meddled.between = [lambda: first.append(issuing.own_key(shelf, "key"))]
    second = issuing.own_key(meddled, "key")  # type: ignore[arg-type]  # as above
    assert [one.public_key() for one in first] == [second.public_key()]
    assert issuing.own_key(shelf, "key").public_key() == second.public_key()
