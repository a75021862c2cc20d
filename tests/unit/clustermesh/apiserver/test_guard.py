"""What is in an etcd says whose it is; a wrong one is refused with the way out."""

import pytest

from clustermesh.apiserver.guard import check_ownership, refuse
from clustermesh.process import Fault
from kvstore.client import PutOp
from kvstore.memory import MemoryStore

OURS = b'{"id":7,"capabilities":{"syncedCanaries":true}}'
COPY = b'{"id":9,"capabilities":{"syncedCanaries":true,"cached":true}}'


def check(configs: dict[str, bytes], *, replace_id: bool = False) -> None:
    refuse(configs, cluster="paris", cluster_id=7, replace_id=replace_id)


def test_an_empty_etcd_and_our_own_are_welcome() -> None:
    check({})
    check({"paris": OURS})


def test_copies_of_remote_clusters_are_welcome() -> None:
    check({"paris": OURS, "rome": COPY})


def test_what_nobody_can_read_is_no_obstacle() -> None:
    check({"paris": b"}", "rome": b"{"})


def test_our_name_with_another_id() -> None:
    other = OURS.replace(b"7", b"8")
    with pytest.raises(Fault, match="belongs to cluster paris with id 8, not 7: correct"):
        check({"paris": other})
    check({"paris": other}, replace_id=True)


def test_the_etcd_of_another_cluster() -> None:
    with pytest.raises(Fault, match=r"belongs to cluster rome \(id 7\), not to paris"):
        check({"rome": OURS}, replace_id=True)


def test_an_id_that_a_remote_cluster_has() -> None:
    with pytest.raises(Fault, match="id 7 is taken by the remote cluster rome"):
        check({"rome": COPY.replace(b"9", b"7")})


async def test_it_is_read_from_the_store() -> None:
    store = MemoryStore()
    await store.commit([PutOp("cilium/cluster-config/rome", OURS)])
    with pytest.raises(Fault, match="belongs to cluster rome"):
        await check_ownership(store, cluster="paris", cluster_id=7, replace_id=False)
