"""The command line of Cilium's kvstoremesh, read as ours: a pod's arguments need not be rewritten.

Most of its flags have the names of ours. The others are translated here; those that steer what
this program does not have (gops, pprof, quorum checks) are let pass and named in the log.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from clustermesh.settings import SettingsError

OPTIONS: Final = "kvstore-opt"
HEALTH_PORT: Final = "9880"
REST: Final = "localhost:9889"
"""Where that program is asked unless it is told otherwise (contract kvstore 8)."""
RENAMED: Final = {"kvstore-lease-ttl": "lease-ttl"}
ETCD: Final = {"etcd.config": "etcd-config", "etcd.qps": "etcd-qps"}
ETCD_UNUSED: Final = frozenset(
    {"etcd.bootstrapQps", "etcd.maxInflight", "etcd.limit"}  # lists and first copies are not paced
)
UNUSED: Final = frozenset(
    {
        *("controller-group-metrics", "gops-port", "kvstore-connectivity-timeout"),
        *("kvstore-max-consecutive-quorum-errors", "kvstore-periodic-sync", "log-driver"),
        *("log-opt", "pprof-address", "pprof-port"),
    }
)
UNUSED_SWITCHES: Final = frozenset({"enable-gops", "enable-heartbeat", "pprof"})
MEANT: Final = {
    "debug": "--log-level=debug",
    "disable-drain-on-disconnection": "--no-drain-on-removal",
}
SWITCHES: Final = UNUSED_SWITCHES | MEANT.keys()
KVSTORE: Final = "kvstore"
_TRUE: Final = ("", "1", "t", "true")


def translated(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The same in our words, and the flags that have no meaning here. Raises ``SettingsError``.

    Who speaks that dialect (``--kvstore-opt``) also finds health and REST on that program's ports.
    """
    ours: list[str] = []
    unused: list[str] = []
    said: set[str] = set()
    for name, value, written in _flags(argv):
        said.add(name)
        if name == OPTIONS:
            ours += _options(value, unused)
        elif name in UNUSED | UNUSED_SWITCHES:
            unused.append(f"--{name}")
        else:
            ours += _flag(name, value, written)
    if OPTIONS in said:
        ours += [] if "health-port" in said else [f"--health-port={HEALTH_PORT}"]
        ours += [] if "api-serve-addr" in said else [f"--api-serve-addr={REST}"]
    return ours, unused


def _flag(name: str, value: str, written: Sequence[str]) -> Sequence[str]:
    if name == KVSTORE and value != "etcd":
        raise SettingsError(f"--{KVSTORE}: expected etcd, found {value!r}")
    if name in RENAMED:
        return [f"--{RENAMED[name]}={value}"]
    if name in MEANT:
        return [MEANT[name]] if value.lower() in _TRUE else []
    return [] if name == KVSTORE else written


def _flags(argv: Sequence[str]) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Name, value and spelling of each argument; of our own flags the value stays where it is."""
    known = {OPTIONS, KVSTORE} | RENAMED.keys() | UNUSED | SWITCHES
    rest = iter(argv)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in known:
            yield (name if word.startswith("--") else ""), value, [word]
        elif equals or name in SWITCHES:
            yield name, value, [word]
        else:
            value = next(rest, "")
            yield name, value, [word, value]


def _options(value: str, unused: list[str]) -> list[str]:
    """``etcd.config=/path,etcd.qps=100`` as flags of ours."""
    options: Mapping[str, str] = {
        name.strip(): text for name, _, text in (part.partition("=") for part in value.split(","))
    }
    for name in options:
        if name not in ETCD and name not in ETCD_UNUSED:
            raise SettingsError(
                f"--{OPTIONS}: {name!r} is not known; expected {', '.join(sorted(ETCD))},"
                " with the etcd's address and certificates in the file that etcd.config names"
            )
    unused += (f"--{OPTIONS}={name}" for name in options if name in ETCD_UNUSED)
    return [f"--{ETCD[name]}={text}" for name, text in options.items() if name in ETCD]
