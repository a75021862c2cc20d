"""Our nftables table: what it should hold as libnftables' own JSON, compared and changed.

pyroute2's nftables part can neither express ``snat to ip saddr`` nor compare a rule with what is
there. libnftables (the library of nft) does both in this process: nothing is started.
"""

import ctypes
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from agent.network.wanted import (
    FAMILIES,
    Facts,
    Family,
    Place,
    collapsed,
    of_family,
    source_address,
)

LIBRARY: Final = "libnftables.so.1"
JSON_OUTPUT: Final = 1 << 4  # NFT_CTX_OUTPUT_JSON; with it, input may be JSON, too
TABLE: Final = {"family": "inet", "table": "clustermesh"}
IP: Final[dict[int, str]] = {4: "ip", 6: "ip6"}
BEFORE_SRCNAT: Final = 90
AFTER_SRCNAT: Final = 110
RAW: Final = -300
FROM_NODE_MARK: Final = 0x1000
"""As in bpf/src/include/packet.h."""
FROM_NODE_PORTS: Final = {"range": [32768, 65535]}
"""No node port is among them: an answer must not be taken for a question (contract 3.8)."""
ALL_BITS: Final = 0xFFFFFFFF

Object = dict[str, Any]  # one member of libnftables' JSON


class NftError(OSError):
    """The kernel or libnftables refused; the text is libnftables' first line."""


# --- what should be there ------------------------------------------------------------------------


def table(place: Place, facts: Facts, *, device_port: int) -> list[Object]:
    """The table's content, in the form in which libnftables lists it.

    - Packets of pods that leave by our device, or for pods that are reached without it, keep
      their source: the first chain that decides on
      a connection's address translation wins, so this one stands before everybody's (design 5).
    - Packets that the balancer has sent on, and whose answers would not come by here, get this
      node's address: in the mesh the one that other clusters know. Then the mark is taken off:
      another program's tunnel would keep it on the outer packet. Our own device's program does it.
    - Where our device listens on another port than the wire's, the port of packets from and to
      mesh nodes is rewritten, without connection tracking.
    """
    objects = [_sources(facts, which) for which in FAMILIES]
    if facts.direct:
        objects.append(_direct(facts))
    objects.append(_chain("keep-source", "nat", "postrouting", BEFORE_SRCNAT))
    through = _match({"meta": {"key": "oifname"}}, place.device)
    if place.balances:
        objects += _from_node(through, facts)
    objects += [_keep_source(through, which) for which in FAMILIES]
    if facts.direct:
        objects.append(_keep_source(_match(_payload(IP[4], "daddr"), "@direct4"), 4))
    if device_port != place.wire_port:
        objects += [_peers(facts, which) for which in FAMILIES]
        objects.append(_chain("port-in", "filter", "prerouting", RAW))
        objects.append(_chain("port-out", "filter", "output", RAW))
        for which in FAMILIES:
            inward = _port(which, "saddr", place.wire_port, device_port)
            outward = _port(which, "daddr", device_port, place.wire_port)
            objects += [_rule("port-in", inward), _rule("port-out", outward)]
    return objects


def _from_node(through: Object, facts: Facts) -> Iterator[Object]:
    """Rules for packets with the balancer's mark, and the chain that ends it."""
    marked = _match({"&": [{"meta": {"key": "mark"}}, FROM_NODE_MARK]}, FROM_NODE_MARK)
    transport = _match({"meta": {"key": "l4proto"}}, {"set": ["tcp", "udp"]})
    for which in FAMILIES:
        address = source_address(facts, which)
        if address:
            protocol = _match({"meta": {"key": "nfproto"}}, f"ipv{which}")
            snat = {"snat": {"family": IP[which], "addr": address, "port": FROM_NODE_PORTS}}
            yield _rule("keep-source", [marked, transport, through, protocol, snat])
    masquerade = {"masquerade": {"port": FROM_NODE_PORTS}}
    yield _rule("keep-source", [marked, transport, masquerade])
    yield _chain("mark-off", "filter", "postrouting", AFTER_SRCNAT)
    mark: Object = {"meta": {"key": "mark"}}
    cleared = {"mangle": {"key": mark, "value": {"&": [mark, ALL_BITS ^ FROM_NODE_MARK]}}}
    elsewhere = _match(through["match"]["left"], through["match"]["right"], op="!=")
    yield _rule("mark-off", [marked, elsewhere, cleared])


def _sources(facts: Facts, which: Family) -> Object:
    elements = [_element(text) for text in collapsed(facts.sources, which)]
    return _set(f"sources{which}", which, elements, flags=["interval"])


def _direct(facts: Facts) -> Object:
    elements = [_element(text) for text in collapsed(facts.direct, 4)]
    return _set("direct4", 4, elements, flags=["interval"])


def _peers(facts: Facts, which: Family) -> Object:
    return _set(f"peers{which}", which, of_family(facts.peers, which), flags=[])


def _set(name: str, which: Family, elements: Sequence[object], *, flags: Sequence[str]) -> Object:
    content: Object = {**TABLE, "name": name, "type": f"ipv{which}_addr"}
    if flags:
        content["flags"] = list(flags)
    if elements:
        content["elem"] = list(elements)
    return {"set": content}


def _element(prefix: str) -> object:
    address, _, length = prefix.partition("/")
    if int(length) == (128 if ":" in address else 32):
        return address
    return {"prefix": {"addr": address, "len": int(length)}}


def _chain(name: str, type_: str, hook: str, priority: int) -> Object:
    how = {"type": type_, "hook": hook, "prio": priority, "policy": "accept"}
    return {"chain": {**TABLE, "name": name, **how}}


def _rule(chain: str, expressions: Sequence[Object]) -> Object:
    return {"rule": {**TABLE, "chain": chain, "expr": list(expressions)}}


def _match(left: Object, right: object, op: str = "==") -> Object:
    return {"match": {"op": op, "left": left, "right": right}}


def _payload(protocol: str, field: str) -> Object:
    return {"payload": {"protocol": protocol, "field": field}}


def _keep_source(going: Object, which: Family) -> Object:
    source = _payload(IP[which], "saddr")
    return _rule(
        "keep-source",
        [
            going,
            _match(source, f"@sources{which}"),
            {"snat": {"family": IP[which], "addr": source}},
        ],
    )


def _port(which: Family, side: str, old: int, new: int) -> list[Object]:
    port = _payload("udp", "dport")
    return [
        _match(_payload(IP[which], side), f"@peers{which}"),
        _match(port, old),
        {"notrack": None},
        {"mangle": {"key": port, "value": new}},
    ]


def keep_unheard(present: Sequence[Object] | None, facts: Facts) -> Facts:
    """The facts with the peers and the direct prefixes that the table has: clusters not heard yet
    may need them."""
    peers = {str(it) for it in _members(present, ("peers4", "peers6"))}
    direct = {_prefix(it) for it in _members(present, ("direct4",))}
    return msgspec.structs.replace(facts, peers=facts.peers | peers, direct=facts.direct | direct)


def _members(present: Sequence[Object] | None, names: Sequence[str]) -> Iterator[str | Object]:
    for found in present or ():
        if "set" in found and found["set"]["name"] in names:
            yield from found["set"].get("elem", ())


def _prefix(element: str | Object) -> str:
    """What ``_element`` was made of."""
    if isinstance(element, str):
        return f"{element}/{128 if ':' in element else 32}"
    return f"{element['prefix']['addr']}/{element['prefix']['len']}"


# --- what has to change --------------------------------------------------------------------------


def changes(present: Sequence[Object] | None, wanted: Sequence[Object]) -> list[Object]:
    """Commands that turn one table into the other, in one transaction; none when they are equal.

    Only elements of sets are changed one by one; anything else makes the table anew.
    """
    if present is not None and _frames(present) == _frames(wanted):
        return _element_changes(present, wanted)
    name = {"table": {"family": TABLE["family"], "name": TABLE["table"]}}
    return [{"add": name}, {"delete": name}, {"add": name}, *({"add": it} for it in wanted)]


def _frames(objects: Sequence[Object]) -> list[Object]:
    """The table without the elements of its sets. The order of rules counts, no other."""
    rules = [it for it in objects if "rule" in it]
    rest = [
        {kind: {name: value for name, value in content.items() if name != "elem"}}
        for it in objects
        if "rule" not in it
        for kind, content in it.items()
    ]
    chains = sorted({it["rule"]["chain"] for it in rules})
    ordered = [it for chain in chains for it in rules if it["rule"]["chain"] == chain]
    return [*sorted(rest, key=_text), *ordered]


def _element_changes(present: Sequence[Object], wanted: Sequence[Object]) -> list[Object]:
    commands: list[Object] = []
    have, want = _elements(present), _elements(wanted)
    for name, elements in want.items():
        gone = [it for key, it in have[name].items() if key not in elements]
        new = [it for key, it in elements.items() if key not in have[name]]
        for verb, changed in (("delete", gone), ("add", new)):
            if changed:
                commands.append({verb: {"element": {**TABLE, "name": name, "elem": changed}}})
    return commands


def _elements(objects: Sequence[Object]) -> dict[str, dict[str, object]]:
    return {
        it["set"]["name"]: {_text(element): element for element in it["set"].get("elem", ())}
        for it in objects
        if "set" in it
    }


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


# --- the kernel ----------------------------------------------------------------------------------


class Nft:
    """libnftables in the calling thread's network namespace. Blocks."""

    def __init__(self, library: ctypes.CDLL, context: ctypes.c_void_p) -> None:
        self._library = library
        self._context = context
        self.writes = 0

    def listing(self, what: str) -> list[Object] | None:
        """``list WHAT`` without handles; None when there is no such thing."""
        try:
            answer = json.loads(self._run(f"list {what}"))
        except NftError as error:
            if "No such file" in str(error):
                return None
            raise
        kept = (it for it in answer["nftables"] if not it.keys() & {"metainfo", "table"})
        return [
            {kind: {k: v for k, v in content.items() if k != "handle"}}
            for it in kept
            for kind, content in it.items()
        ]

    def table(self) -> list[Object] | None:
        """Our table's content."""
        return self.listing(f"table {TABLE['family']} {TABLE['table']}")

    def commit(self, commands: Sequence[Object]) -> None:
        """All commands or none."""
        if commands:
            self.writes += 1
            self._run(json.dumps({"nftables": list(commands)}))

    def remove(self) -> None:
        """Our table is gone."""
        if self.table() is not None:
            self.commit([{"delete": {"table": {"family": "inet", "name": TABLE["table"]}}}])

    def _run(self, command: str) -> str:
        library = self._library
        failed = library.nft_run_cmd_from_buffer(self._context, command.encode())
        output = library.nft_ctx_get_output_buffer(self._context) or b""
        problem = library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise NftError(problem.decode(errors="replace").partition("\n")[0] or "nft failed")
        return str(output.decode())


@contextmanager
def nft() -> Iterator[Nft]:
    """A context of libnftables; raises ``NftError`` when the library is missing."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        raise NftError(
            f"{LIBRARY} is missing, so pods' addresses cannot be kept from masquerading;"
            " install the nftables package"
        ) from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_output_set_flags(context, JSON_OUTPUT)
        yield Nft(library, context)
    finally:
        library.nft_ctx_free(context)
