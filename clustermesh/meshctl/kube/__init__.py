"""Clusters that are reached by way of their Kubernetes API server."""
