"""Times as they are written into etcd: RFC 3339, UTC, whole seconds (contract kvstore 12.keys)."""

from datetime import UTC, datetime


def stamp(unix: float) -> bytes:
    """``2026-11-21T00:28:21Z`` for a time in Unix seconds."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
