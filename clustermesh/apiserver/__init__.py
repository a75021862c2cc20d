"""The control plane of one cluster: its objects in, its facts out."""
