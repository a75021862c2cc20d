"""What a consumer pays per key. `python tests/bench/clustermesh/decode.py`.

The reference of the same run is the JSON decoder alone.
"""

import sys
import timeit
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from agent.services import offers
from clustermesh import gojson, keys, model
from clustermesh.keys import Kind, Layout, Origin
from tests.support.vectors import MOCK, records

READERS = {
    Kind.NODES: gojson.Reader(model.Node),
    Kind.IPS: gojson.Reader(model.IPEntry),
    Kind.SERVICES: gojson.Reader(model.ClusterService),
}


def cost(statement: str, scope: dict[str, object]) -> float:
    """Microseconds of one run, the best of five."""
    timer = timeit.Timer(statement, globals=scope)
    count, _ = timer.autorange()
    return min(timer.repeat(repeat=5, number=count)) / count * 1e6


def main() -> None:
    origin = Origin("cluster-001", 1, layout=Layout.CACHE)
    for kind in (Kind.NODES, Kind.IDENTITIES, Kind.IPS, Kind.SERVICES):
        place = keys.prefix(kind, origin.layout, origin.cluster)
        for record in [each for each in records(MOCK / "etcd.jsonl") if each.key.startswith(place)][
            :2
        ]:
            scope: dict[str, object] = {
                "decode": keys.decoder(kind, origin),
                "key": record.key,
                "value": record.value,
            }
            whole = cost("decode(key, value)", scope)
            line = f"{kind:<12}{len(record.value):>6} bytes: {whole:6.2f} us"
            if kind in READERS:
                scope["fast"] = READERS[kind].decode
                line += f", {whole / cost('fast(value)', scope):.1f} times the JSON decoder"
            print(line)
    for backends, ports in ((2, 1), (25, 2)):
        show_offer(origin, backends, ports)


def show_offer(origin: Origin, backends: int, ports: int) -> None:
    """What an agent pays for a service that it can use: decoded, checked, made an offer."""
    offered = {f"port-{at}": model.Port("TCP", 8080 + at) for at in range(ports)}
    service = model.ClusterService(
        cluster=origin.cluster,
        namespace="shop",
        name="cart",
        backends={f"10.1.2.{at}": offered for at in range(backends)},
        shared=True,
        cluster_id=origin.cluster_id,
    )
    place = keys.prefix(Kind.SERVICES, origin.layout, origin.cluster)
    scope: dict[str, object] = {
        "decode": keys.decoder(Kind.SERVICES, origin),
        "offer": offers.of_remote,
        "key": place + keys.name_of(service),
        "value": keys.encode(service),
    }
    whole = cost("offer(decode(key, value))", scope)
    print(f"offer of {backends} backends with {ports} ports: {whole:6.2f} us")


if __name__ == "__main__":
    main()
