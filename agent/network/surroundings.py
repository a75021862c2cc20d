"""What others decide on the node and no rule of ours can overrule: seen and named."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from agent.network.nftables import Nft, Object
from agent.network.wanted import Facts, Place, of_family

FORWARDING: Final = {
    4: Path("/proc/sys/net/ipv4/ip_forward"),
    6: Path("/proc/sys/net/ipv6/conf/all/forwarding"),
}
KEY: Final = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
TOOL: Final = {"ip": "iptables", "ip6": "ip6tables"}


def troubles(nft: Nft, place: Place, facts: Facts) -> list[str]:
    """Full sentences, each with the way out."""
    return [*_not_forwarding(facts), *_dropping(nft, place)]


def _not_forwarding(facts: Facts) -> Iterator[str]:
    for which, path in FORWARDING.items():
        wanted = of_family(facts.destinations, 4 if which == 4 else 6)
        if wanted and path.exists() and path.read_text().strip() == "0":
            yield (
                f"this node forwards no IPv{which} packets, so none from the mesh reaches a pod;"
                f" run: sysctl -w {KEY[which]}=1"
            )


def _dropping(nft: Nft, place: Place) -> Iterator[str]:
    for found in nft.listing("chains") or ():
        chain = found.get("chain", {})
        if chain.get("hook") != "forward" or chain.get("policy") != "drop":
            continue
        family, table, name = chain["family"], chain["table"], chain["name"]
        rules = nft.listing(f"chain {family} {table} {name}") or ()
        if not _accepts(rules, place.device):
            yield (
                f"chain {name} of table {family} {table} drops what is forwarded by default, which"
                f" no table of ours can overrule; run: {_remedy(family, table, name, place.device)}"
            )


def _accepts(rules: Sequence[Object], device: str) -> bool:
    """Whether a rule lets packets of our device pass; its other conditions are not judged."""
    return any(
        "accept" in expression
        for rule in rules
        if f"'{device}'" in str(rule)
        for expression in rule.get("rule", {}).get("expr", ())
    )


def _remedy(family: str, table: str, chain: str, device: str) -> str:
    if tool := TOOL.get(family):
        return (
            f"{tool} -t {table} -I {chain} -i {device} -j ACCEPT;"
            f" {tool} -t {table} -I {chain} -o {device} -j ACCEPT"
        )
    return (
        f"nft insert rule {family} {table} {chain} iifname {device} accept;"
        f" nft insert rule {family} {table} {chain} oifname {device} accept"
    )
