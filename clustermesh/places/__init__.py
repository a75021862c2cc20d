"""Where a cluster keeps what connects it: files of a host, or objects in its Kubernetes."""
