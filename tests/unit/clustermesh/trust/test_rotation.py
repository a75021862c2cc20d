"""A new authority takes over: nobody is refused after any single change, crash or not."""

import ssl
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from clustermesh.certificates import CertificateError, certificates_in
from clustermesh.pki import CROSS, Authority, write_private
from clustermesh.places.shelf import Folder
from clustermesh.trust.keeping import Keys
from clustermesh.trust.rotation import Rotation, Step
from tests.support import handshakes

NAME = "cluster-b"


class World:
    """Cluster b with its etcd, its admin, and cluster a that reads it."""

    def __init__(self, top: Path) -> None:
        self.pki, self.peer = top / "pki", top / "remotes-of-a"
        self.pki.mkdir()
        self.peer.mkdir()
        made = Authority.create(NAME)
        made.write(self.pki / "ca.crt", self.pki / "ca.key")
        made.server(["192.0.2.7"]).write(self.pki / "server.crt", self.pki / "server.key")
        made.client("admin-cluster-b").write(self.pki / "admin.crt", self.pki / "admin.key")
        pair = made.client("remote-cluster-a")
        stem = self.peer / "cluster-b.etcd-client"
        pair.write(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        write_private(self.peer / "cluster-b.etcd-client-ca.crt", made.certificate)
        other = Authority.create("cluster-c")
        write_private(self.peer / "cluster-c.etcd-client-ca.crt", other.certificate)
        other.client("remote-cluster-a").write(self.peer / "c.crt", self.peer / "c.key")
        self.first = made.certificate
        """What an etcd that is never restarted trusts."""

    def rotation(self) -> Rotation:
        return Rotation(Keys(Folder(self.pki)), [Folder(self.peer)], name=NAME)

    def all_are_taken(self) -> None:
        """By an etcd that runs since the beginning, and by one that was started just now."""
        for trusted in (self.first, (self.pki / "ca.crt").read_bytes()):
            etcd = handshakes.server(self.pki / "server.crt", self.pki / "server.key", trusted)
            admin = self.client(self.pki / "admin", self.pki / "ca.crt")
            stem = self.peer / "cluster-b.etcd-client"
            peer = self.client(stem, self.peer / "cluster-b.etcd-client-ca.crt")
            assert handshakes.shake(admin, etcd, "192.0.2.7") == "admin-cluster-b"
            assert handshakes.shake(peer, etcd, "cluster-b.mesh.cilium.io") == "remote-cluster-a"

    def client(self, stem: Path, trusted: Path) -> ssl.SSLContext:
        return handshakes.client(stem.with_suffix(".crt"), stem.with_suffix(".key"), trusted)

    def files(self) -> dict[str, bytes]:
        paths = (*self.pki.iterdir(), *self.peer.iterdir())
        return {path.name: path.read_bytes() for path in paths}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def through(world: World, *steps: Step, each: Callable[[], None] = lambda: None) -> list[str]:
    done = []
    for step in steps:
        for change in world.rotation().changes(step):
            change.do()
            each()
            done.append(change.what)
    return done


def test_after_every_single_change_everybody_is_taken(world: World):
    world.all_are_taken()
    changes = through(world, *Step, each=world.all_are_taken)
    assert len(changes) == 11, changes
    assert world.rotation().done is None


def test_at_the_end_only_the_new_authority_is_trusted_and_its_key_kept(world: World):
    before = world.rotation().authority()
    through(world, *Step)
    after = world.rotation().authority()
    assert after.certificate != before.certificate
    assert after.bundle == after.certificate
    for name in ("pki/ca.crt", "remotes-of-a/cluster-b.etcd-client-ca.crt"):
        (found,) = certificates_in(world.pki.parent / name)
        assert found == after.root
    assert sorted(path.name for path in world.pki.glob("ca*")) == [CROSS, "ca.crt", "ca.key"]
    assert [path for path, _ in world.rotation().leaves(before)] == []


def test_a_certificate_of_the_old_authority_is_refused_by_an_etcd_started_afterwards(world: World):
    old = world.rotation().authority()
    through(world, *Step)
    old.client("remote-cluster-a").write(world.peer / "stolen.crt", world.peer / "stolen.key")
    stolen = world.client(world.peer / "stolen", world.pki / "ca.crt")
    etcd = handshakes.server(
        world.pki / "server.crt", world.pki / "server.key", (world.pki / "ca.crt").read_bytes()
    )
    with pytest.raises(ssl.SSLError):
        handshakes.shake(stolen, etcd, "192.0.2.7")


def test_a_crash_after_any_change_is_taken_up_again(tmp_path: Path):
    for stop in range(1, 11):
        (tmp_path / str(stop)).mkdir()
        world = World(tmp_path / str(stop))
        left = stop
        for step in Step:
            for change in world.rotation().changes(step):
                change.do()
                left -= 1
                if not left:
                    break
            if not left:
                break
        order = list(Step)
        begun = world.rotation().done
        assert begun is not None
        through(world, *order[order.index(begun) :], each=world.all_are_taken)
        assert world.rotation().done is None, stop


def test_each_step_is_done_once(world: World):
    for step in (Step.TRUST, Step.ISSUE):
        assert through(world, step)
        before = world.files()
        assert through(world, step) == []
        assert world.files() == before
    assert through(world, Step.DROP)
    assert through(world, Step.DROP) == []


def test_steps_are_taken_in_their_order(world: World):
    with pytest.raises(CertificateError, match="begin with the step `trust`"):
        through(world, Step.ISSUE)
    through(world, Step.TRUST)
    with pytest.raises(CertificateError, match="`issue` has to come first"):
        through(world, Step.DROP)
    write_private(world.peer / "cluster-b.etcd-client-ca.crt", world.first)
    with pytest.raises(CertificateError, match=r"both.*still to be done"):
        through(world, Step.ISSUE)


def test_to_look_at_the_next_step_changes_nothing(world: World):
    before = world.files()
    assert len(list(world.rotation().changes(Step.TRUST))) == 1
    assert world.files() == before
    through(world, Step.TRUST)
    before = world.files()
    assert len(list(world.rotation().changes(Step.ISSUE))) == 1
    assert world.files() == before


def test_names_keys_and_strangers_stay_as_they_are(world: World):
    before = world.files()
    through(world, *Step)
    after = world.files()
    assert {name for name in before if name.endswith(".key") and before[name] != after[name]} == {
        "ca.key"
    }
    strangers = {"c.crt", "cluster-c.etcd-client-ca.crt"}
    assert {name: after[name] for name in strangers} == {name: before[name] for name in strangers}
    assert {stat.S_IMODE(path.stat().st_mode) for path in world.pki.iterdir()} == {0o600}


def test_what_is_issued_during_and_after_a_rotation_is_taken_as_well(world: World):
    def join() -> None:
        made = world.rotation().authority().client("remote-cluster-a")
        stem = world.peer / "cluster-b.etcd-client"
        made.write(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        world.all_are_taken()

    through(world, Step.TRUST)
    join()
    through(world, Step.ISSUE)
    join()
    through(world, Step.DROP)
    join()


def test_a_second_rotation_begins_anew_with_an_etcd_that_was_restarted_between(world: World):
    through(world, *Step)
    world.first = (world.pki / "ca.crt").read_bytes()
    through(world, *Step, each=world.all_are_taken)
