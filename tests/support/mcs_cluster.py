"""Another cluster as its etcd shows it: what its control plane would write of its exports."""

from datetime import UTC, datetime
from pathlib import Path

import yaml

from clustermesh import keys
from clustermesh.gojson import encode
from clustermesh.keys import Kind, Layout
from clustermesh.model import Capabilities, ClusterConfig, ServiceExport
from kvstore.client import DeleteOp, PutOp
from kvstore.etcd import open_etcd
from tests.support.etcd import Etcd


class OtherCluster:
    """Writes as a control plane, and configures itself as a remote in a directory."""

    def __init__(self, name: str, number: int, etcd: Etcd, remotes: Path) -> None:
        self.name = name
        self.number = number
        self.etcd = etcd
        self.remotes = remotes
        remotes.mkdir(exist_ok=True)

    def join(self) -> None:
        """Put the client file where the others look."""
        fresh = self.remotes.parent / "fresh"
        fresh.write_text(yaml.safe_dump({"endpoints": [self.etcd.url]}))
        fresh.replace(self.remotes / self.name)

    def leave(self) -> None:
        """Remove it."""
        (self.remotes / self.name).unlink()

    async def begin(self, *exports: ServiceExport, enabled: bool | None = True) -> None:
        """Config, these exports, the canary, and a heartbeat."""
        capabilities = Capabilities(
            synced_canaries=True, max_connected_clusters=255, service_exports_enabled=enabled
        )
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
        config = encode(ClusterConfig(id=self.number, capabilities=capabilities))
        await self._write(
            PutOp(keys.cluster_config(self.name), config),
            *(PutOp(keys.key_of(self.name, each), keys.encode(each)) for each in exports),
            PutOp(keys.canary(Kind.SERVICE_EXPORTS, Layout.STATE, self.name), now),
            PutOp(keys.HEARTBEAT, now),
        )

    async def put(self, export: ServiceExport) -> None:
        """Export it, or change it."""
        await self._write(PutOp(keys.key_of(self.name, export), keys.encode(export)))

    async def drop(self, export: ServiceExport) -> None:
        """Export it no more."""
        await self._write(DeleteOp(keys.key_of(self.name, export)))

    async def _write(self, *ops: PutOp | DeleteOp) -> None:
        async with open_etcd(self.etcd.config()) as store:
            await store.commit(ops)
