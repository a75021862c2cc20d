"""A folder's objects depend on what its files say now, whichever came first."""

from hypothesis import given
from hypothesis import strategies as st

from clustermesh.sources.directory.folder import Folder
from clustermesh.sources.directory.parse import Parsed, Problem, parse
from clustermesh.sources.objects import KubernetesObject, ObjectKind, Ref, ref
from clustermesh.sources.port import ObjectChange, Removal, Upsert

files = st.sampled_from(["a.yaml", "b.yaml", "c.yaml"])
documents = st.dictionaries(st.sampled_from(["one", "two"]), st.integers(1, 3), max_size=2)
World = dict[str, Parsed]


def text(content: dict[str, int]) -> bytes:
    return b"---\n".join(
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"
        f"spec: {{ports: [{{port: {port}}}]}}\n".encode()
        for name, port in content.items()
    )


class Follower:
    """What somebody knows who only hears of changes."""

    def __init__(self) -> None:
        self.objects: dict[Ref, KubernetesObject] = {}
        self.complaints: dict[str, str] = {}

    def hear(self, changes: list[ObjectChange], folder: Folder) -> None:
        for change in changes:
            if isinstance(change, Upsert):
                assert self.objects.get(ref(change.object)) != change.object
                self.objects[ref(change.object)] = change.object
            else:
                del self.objects[change.ref]
        for where, reason in folder.complaints():
            if reason is None:
                del self.complaints[where]
            else:
                self.complaints[where] = reason


def expected(world: World) -> tuple[dict[Ref, KubernetesObject], set[str]]:
    """The objects, and the places of those that an earlier file has already."""
    wanted: dict[Ref, KubernetesObject] = {}
    duplicates = set()
    for name in sorted(world):
        for found, (object_, place) in world[name].objects.items():
            if found in wanted:
                duplicates.add(f"{name} {place}")
            wanted.setdefault(found, object_)
    return wanted, duplicates


@given(st.lists(st.tuples(files, st.none() | documents), max_size=12))
def test_the_first_file_by_name_that_has_an_object_decides(
    steps: list[tuple[str, dict[str, int] | None]],
) -> None:
    folder, follower = Folder(), Follower()
    world: World = {}
    for name, content in steps:
        if content is None:
            world.pop(name, None)
            follower.hear(folder.drop(name), folder)
        else:
            world[name] = parse(text(content))
            follower.hear(folder.put(name, world[name]), folder)
        wanted, duplicates = expected(world)
        assert follower.objects == wanted
        assert follower.complaints.keys() == duplicates


def test_a_bad_document_of_a_known_object_spares_that_object_only() -> None:
    one, two = (Ref(ObjectKind.SERVICE, "default", name) for name in ("one", "two"))
    folder = Folder()
    folder.put("a.yaml", parse(text({"one": 1, "two": 2})))
    spoilt = Parsed(problems=(Problem("document 1", "bad", one),))
    assert folder.put("a.yaml", spoilt) == [Removal(two)]
    assert dict(folder.complaints()) == {"a.yaml document 1": "bad"}
    folder.unreadable("a.yaml", "cannot be read")
    assert dict(folder.complaints()) == {"a.yaml document 1": None, "a.yaml": "cannot be read"}
    assert folder.drop("a.yaml") == [Removal(one)]
    assert dict(folder.complaints()) == {"a.yaml": None}
