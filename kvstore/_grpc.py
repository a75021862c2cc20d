"""gRPC, told to be quiet before it is imported: take it from here and nowhere else."""

import os

# Its C core writes to stderr on its own; every failure reaches us as a status anyway. Its fork
# handlers are for programs that go on using a channel in the child, which we never do.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc

__all__ = ["grpc"]
