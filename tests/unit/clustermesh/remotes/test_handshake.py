"""Who may join this mesh (contract kvstore 3 and 4), row by row."""

import pytest

from agent.facts import Me
from clustermesh.remotes.handshake import Ids, Refused, judge, judge_own

ME255 = Me("home", 1, "n", "192.0.2.1", 255)
ME511 = Me("home", 1, "n", "192.0.2.1", 511)


@pytest.mark.parametrize(
    ("me", "value"),
    [
        (ME255, b'{"id":7,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255}}'),
        (ME255, b'{"id":7,"capabilities":{}}'),
        (ME255, b'{"id":255,"capabilities":{"maxConnectedClusters":511}}'),
        (ME511, b'{"id":300,"capabilities":{"maxConnectedClusters":511}}'),
        (ME255, b'{"id":7,"capabilities":{"endpointSlicesExportMode":"endpointslices-only"}}'),
        (ME255, b'{"id":7,"unknown":true,"capabilities":{"cached":true}}'),
        (ME255, b'{"id":7}'),
        (ME255, b'{"id":7,"capabilities":null}'),
        (ME255, b'{"ID":7,"Capabilities":{"SyncedCanaries":true,"serviceExportsEnabled":null}}'),
        (ME255, b'{"id":7,"capabilities":{"maxConnectedClusters":0,"cached":null}}'),
        (ME255, b' {"capabilities":{"syncedCanaries":true,"future":{"a":[]}},"id":7}\n'),
        (ME511, b'{"id":511,"capabilities":{"maxConnectedClusters":511}}'),
    ],
)
def test_these_fit(me: Me, value: bytes) -> None:
    assert judge("paris", value, me).id in (7, 255, 300, 511)


@pytest.mark.parametrize(
    ("me", "value", "reason"),
    [
        (ME255, b"", "cluster-config of paris"),
        (ME255, b"[]", "cluster-config of paris"),
        (ME255, b'{"capabilities":{}}', "id: expected 1 to 255, found 0"),
        (ME255, b'{"id":256,"capabilities":{}}', "id: expected 1 to 255, found 256"),
        (ME511, b'{"id":7,"capabilities":{}}', "maxConnectedClusters: expected 511"),
        (
            ME511,
            b'{"id":7,"capabilities":{"maxConnectedClusters":255}}',
            "maxConnectedClusters: expected 511",
        ),
        (
            ME255,
            b'{"id":7,"capabilities":{"endpointSlicesExportMode":"sometimes"}}',
            "endpointSlicesExportMode: expected one of",
        ),
        (ME255, b'{"id":"seven","capabilities":{}}', "cluster-config of paris"),
        (ME255, b'{"id":7,"capabilities":[]}', "cluster-config of paris"),
        (ME255, b'{"id":-7}', "cluster-config of paris"),
        (ME255, b'{"id":7.5}', "cluster-config of paris"),
        (ME511, b'{"id":512,"capabilities":{"maxConnectedClusters":511}}', "found 512"),
        (ME255, b'{"id":7,"capabilities":{"endpointSlicesExportMode":7}}', "cluster-config"),
    ],
)
def test_these_do_not_and_the_reason_is_named(me: Me, value: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        judge("paris", value, me)


def test_the_own_config_must_be_the_own() -> None:
    assert judge_own(b'{"id":1,"capabilities":{}}', ME255).id == 1
    with pytest.raises(Refused, match="--cluster-id 1"):
        judge_own(b'{"id":2,"capabilities":{}}', ME255)


def test_an_id_has_one_holder_until_it_is_released() -> None:
    ids = Ids(ME255)
    ids.reserve("paris", 7)
    ids.reserve("paris", 7)
    with pytest.raises(Refused, match="that of paris in this mesh"):
        ids.reserve("lyon", 7)
    with pytest.raises(Refused, match="this cluster itself"):
        ids.reserve("lyon", 1)
    ids.release("paris")
    ids.reserve("lyon", 7)
