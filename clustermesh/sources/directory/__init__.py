"""The local cluster's objects from a directory of YAML manifests."""

from clustermesh.sources.directory.source import DirectorySettings, DirectorySource
from clustermesh.sources.directory.survey import kinds_in

__all__ = ["DirectorySettings", "DirectorySource", "kinds_in"]
