"""The local cluster's objects from a Kubernetes API server, listed and watched for ever."""
