"""Map entries in the words of cilium-dbg (contract datapath 7)."""

from ipaddress import ip_address, ip_network

from bpf.counters import Reason
from bpf.layout import (
    IpcacheKey,
    IpcacheValue,
    MetricsKey,
    NodeValue,
    TunnelKey,
    TunnelValue,
)
from bpf.layout_ct import ConnectionBits, ConnectionKey, ConnectionValue
from bpf.layout_lb import (
    BackendValue,
    ReverseNatValue,
    ServiceFlag,
    ServiceKey,
    ServiceValue,
    pack_backend_id,
    pack_rev_nat,
    pack_table,
)
from clustermesh.meshctl import maps
from clustermesh.meshctl.connections import connections


def ip(text: str) -> bytes:
    return ip_address(text).packed


def test_tunnel_entries():
    entries = [
        (TunnelKey(ip("10.2.0.0")).pack(), TunnelValue(ip("192.168.1.2")).pack()),
        (TunnelKey(ip("10.2.0.0"), 3).pack(), TunnelValue(ip("192.168.1.3"), 255).pack()),
        (TunnelKey(ip("fd00::")).pack(), TunnelValue(ip("192.168.1.4")).pack()),
    ]
    assert maps.tunnel(entries) == [
        ("10.2.0.0", "192.168.1.2:0"),
        ("10.2.0.0@3", "192.168.1.3:255"),
        ("fd00::", "192.168.1.4:0"),
    ]


def test_ipcache_entries():
    key = IpcacheKey.of(ip_network("10.2.0.5/32"), 3)
    value = IpcacheValue(196615, ip("192.168.1.3"), 255, flags=1)
    plain = IpcacheKey.of(ip_network("fd00::/64"))
    assert maps.ipcache([(key.pack(), value.pack()), (plain.pack(), IpcacheValue(2).pack())]) == [
        (
            "10.2.0.5/32@3",
            "identity=196615 encryptkey=255 tunnelendpoint=192.168.1.3, flags=skiptunnel",
        ),
        ("fd00::/64", "identity=2 encryptkey=0 tunnelendpoint=0.0.0.0, flags=<none>"),
    ]


MASTER = ServiceKey(ip("10.96.0.10"), 80, 0)
BACKENDS = [
    (pack_backend_id(2), BackendValue(ip("10.2.0.5"), 8080, 6, cluster_id=3).pack()),
    (pack_backend_id(1), BackendValue(ip("10.1.0.5"), 8080, 0, zone=4).pack()),
]


def test_services_show_masters_and_slots():
    entries = [
        (MASTER.pack(), ServiceValue(10800, 2, 7, ServiceFlag.SESSION_AFFINITY).pack()),
        (ServiceKey(ip("10.96.0.10"), 80, 0, 1).pack(), ServiceValue(1, 0, 7).pack()),
        (ServiceKey(ip("10.96.0.10"), 80, 0, 2).pack(), ServiceValue(9, 0, 7).pack()),
    ]
    assert maps.services(entries, BACKENDS) == [
        ("10.96.0.10:80 (0)", "0.0.0.0:0 (7) (0) [ClusterIP, sessionAffinity, non-routable]"),
        ("10.96.0.10:80 (1)", "10.1.0.5:8080 (7) (1)"),
        ("10.96.0.10:80 (2)", "backend 9 not found"),
    ]


def test_protocol_scope_family_and_flag_words():
    flags = (
        ServiceFlag.LOAD_BALANCER
        | ServiceFlag.ROUTABLE
        | ServiceFlag.EXT_LOCAL
        | ServiceFlag.TWO_SCOPES
        | ServiceFlag.SOURCE_RANGE
    )
    entries = [
        (ServiceKey(ip("1.2.3.4"), 443, 6, 0, 1).pack(), ServiceValue(0, 0, 9, flags).pack()),
        (ServiceKey(ip("fd00:96::a"), 80, 17).pack(), ServiceValue(0, 0, 10).pack()),
    ]
    assert maps.services(entries, []) == [
        (
            "1.2.3.4:443/TCP/i (0)",
            "0.0.0.0:0 (9) (0) [LoadBalancer, Local, two-scopes, check source-range]",
        ),
        ("[fd00:96::a]:80/UDP (0)", "[::]:0 (10) (0) [ClusterIP, non-routable]"),
    ]


def test_frontends_show_the_raw_entry():
    value = ServiceValue(10800, 2, 7, ServiceFlag.SESSION_AFFINITY | ServiceFlag.INT_LOCAL, 1)
    assert maps.frontends([(MASTER.pack(), value.pack())]) == [
        ("10.96.0.10:80 (0)", "10800 2[1] (7) [0x10 0x10]")
    ]


def test_backends_are_sorted_by_id():
    assert maps.backends(BACKENDS) == [
        ("1", "ANY://10.1.0.5:8080[4]"),
        ("2", "TCP://10.2.0.5:8080@3"),
    ]


def test_reverse_nat_ids_are_numbers_in_network_order():
    entries = [(pack_rev_nat(7), ReverseNatValue(ip("10.96.0.10"), 80).pack())]
    assert maps.reverse_nat(entries) == [("7", "10.96.0.10:80")]


def test_selection_tables_name_a_backend_per_place():
    read = [(pack_rev_nat(9), pack_table([3])), (pack_rev_nat(7), pack_table([1, 2, 1]))]
    assert maps.tables(read, 4) == [("[7]/v4", "[1 2 1]"), ("[9]/v4", "[3]")]


def test_nodes_show_what_each_may_send():
    entries = [(ip("172.30.2.11"), NodeValue.of_cluster(2).pack())]
    assert maps.nodes(entries) == [("172.30.2.11", "2", "131072-196607")]


def test_metrics_are_sorted_and_told_in_words():
    counters = {
        MetricsKey(171, 1, 1, 3).pack(): (2, 200),
        MetricsKey(0, 2, 2, 3).pack(): (5, 500),
        MetricsKey(250, 1, 99, 99).pack(): (1, 1),
    }
    invalid, success, unknown = maps.metrics(counters)
    assert invalid[:6] == ("Invalid identity", "INGRESS", "2", "200", "1", "overlay.bpf.c")
    assert success[:6] == ("Success", "EGRESS", "5", "500", "2", "overlay.bpf.c")
    assert success[6] == "passed; sent as world: the source is not known yet"
    assert unknown == ("Unknown reason 250", "INGRESS", "1", "1", "99", "99", "")


def test_every_reason_the_programs_count_has_its_words():
    for reason in Reason:
        ((words, *_),) = maps.metrics({MetricsKey(reason, 1, 1, 3).pack(): (1, 1)})
        assert not words.startswith("Unknown")


def test_connections_lead_from_the_client_to_whom_it_asked():
    client, vip, pod = (ip_address(it).packed for it in ("203.0.113.9", "10.96.0.10", "10.1.0.5"))
    bits = ConnectionBits.SEEN_NON_SYN | ConnectionBits.NODE_PORT
    named = ConnectionValue(bytes(8) + (9).to_bytes(8, "little"), 3, 180, 5000, bits, 7, 2)
    asked = ConnectionValue(bytes(16), 4, 240, 5060, ConnectionBits(0), 7, 2, 0x12, 0x10, 0, 8, 9)
    entries = [
        (ConnectionKey(vip, client, 40000, 80, 6, 4).pack(), named.pack()),
        (ConnectionKey(client, pod, 8080, 40000, 6, 0).pack(), asked.pack()),
    ]
    assert connections(entries) == [
        (
            "TCP OUT 203.0.113.9:40000 -> 10.1.0.5:8080",
            (
                "expires=5060 Packets=4 Bytes=240 RxFlagsSeen=0x10 LastRxReport=9 TxFlagsSeen=0x12"
                " LastTxReport=8 Flags=0x0000 [ ] RevNAT=7 SourceSecurityID=0 IfIndex=2 BackendID=0"
            ),
        ),
        (
            "TCP SVC 203.0.113.9:40000 -> 10.96.0.10:80",
            (
                "expires=5000 Packets=3 Bytes=180 RxFlagsSeen=0x00 LastRxReport=0 TxFlagsSeen=0x00"
                " LastTxReport=0 Flags=0x0030 [ SeenNonSyn NodePort ] RevNAT=7 SourceSecurityID=0"
                " IfIndex=2 BackendID=9"
            ),
        ),
    ]
