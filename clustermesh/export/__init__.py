"""Kubernetes objects in, keys and values of the mesh out. No I/O."""

from clustermesh.export.build import Numbers
from clustermesh.export.exporter import Exporter, KeyChanges
from clustermesh.export.settings import ExportSettings, Flavour, SliceExport, cluster_config

__all__ = [
    "ExportSettings",
    "Exporter",
    "Flavour",
    "KeyChanges",
    "Numbers",
    "SliceExport",
    "cluster_config",
]
