"""Rule sets of kube-proxy's shape, in its two forms: what a node has on which we arrive second."""

import subprocess
from collections.abc import Callable, Mapping

Services = Mapping[str, str]
"""Service address to the one endpoint that serves it; both by TCP and UDP, port 80 to 8080."""

PORT, TARGET = 80, 8080
MASQUERADE = "0x4000"


def iptables(services: Services, *, v6: bool) -> str:
    """For iptables-restore: KUBE-SERVICES, a chain per service, a chain per endpoint."""
    bits = 128 if v6 else 32
    declared = ["KUBE-SERVICES", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"]
    rules = [
        "-A PREROUTING -j KUBE-SERVICES",
        "-A OUTPUT -j KUBE-SERVICES",
        "-A POSTROUTING -j KUBE-POSTROUTING",
        f"-A KUBE-MARK-MASQ -j MARK --set-xmark {MASQUERADE}/{MASQUERADE}",
        f"-A KUBE-POSTROUTING -m mark ! --mark {MASQUERADE}/{MASQUERADE} -j RETURN",
        f"-A KUBE-POSTROUTING -j MARK --set-xmark {MASQUERADE}/0x0",
        "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    ]
    for at, (service, endpoint) in enumerate(services.items()):
        where = f"[{endpoint}]:{TARGET}" if v6 else f"{endpoint}:{TARGET}"
        for protocol in ("tcp", "udp"):
            svc, sep = f"KUBE-SVC-{protocol}{at}", f"KUBE-SEP-{protocol}{at}"
            declared += [svc, sep]
            match = f"-d {service}/{bits} -p {protocol} -m {protocol} --dport {PORT}"
            rules += [
                f"-A KUBE-SERVICES {match} -j {svc}",
                f"-A {svc} -j {sep}",
                f"-A {sep} -s {endpoint}/{bits} -j KUBE-MARK-MASQ",
                f"-A {sep} -p {protocol} -m {protocol} -j DNAT --to-destination {where}",
            ]
    chains = [f":{chain} - [0:0]" for chain in declared]
    return "\n".join(["*nat", *chains, *rules, "COMMIT", ""])


def nftables(services: Services, *, v6: bool) -> str:
    """For nft -f: a verdict map from address, protocol and port to a chain per service."""
    family, kind = ("ip6", "ipv6_addr") if v6 else ("ip", "ipv4_addr")
    lines = [f"table {family} kube-proxy {{"]
    elements = []
    for at, (service, endpoint) in enumerate(services.items()):
        where = f"[{endpoint}]:{TARGET}" if v6 else f"{endpoint}:{TARGET}"
        for protocol in ("tcp", "udp"):
            name = f"{protocol}{at}"
            lines += [
                f" chain endpoint-{name} {{",
                f"  {family} saddr {endpoint} meta mark set mark or {MASQUERADE}",
                f"  meta l4proto {protocol} dnat to {where}",
                " }",
                f" chain service-{name} {{",
                f"  numgen random mod 1 vmap {{ 0 : goto endpoint-{name} }}",
                " }",
            ]
            elements.append(f"{service} . {protocol} . {PORT} : goto service-{name}")
    look_up = f"{family} daddr . meta l4proto . th dport vmap @service-ips"
    lines += [
        f" map service-ips {{ type {kind} . inet_proto . inet_service : verdict;",
        f"  elements = {{ {', '.join(elements)} }} }}",
        " chain services {",
        f"  {look_up}",
        " }",
        " chain nat-prerouting { type nat hook prerouting priority -100; jump services; }",
        " chain nat-output { type nat hook output priority -100; jump services; }",
        " chain nat-postrouting { type nat hook postrouting priority 100;",
        f"  mark and {MASQUERADE} != 0 masquerade fully-random",
        " }",
        "}",
    ]
    return "\n".join(lines)


def load_iptables(services: Services, *, v6: bool) -> None:
    """Into this network namespace."""
    command = ["ip6tables-restore" if v6 else "iptables-restore"]
    subprocess.run(command, input=iptables(services, v6=v6), text=True, check=True)


def load_nftables(services: Services, *, v6: bool) -> None:
    """Into this network namespace."""
    subprocess.run(["nft", "-f", "-"], input=nftables(services, v6=v6), text=True, check=True)


SHAPES: dict[str, Callable[..., None]] = {"iptables": load_iptables, "nftables": load_nftables}
