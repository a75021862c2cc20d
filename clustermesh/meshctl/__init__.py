"""What the operator types: connect clusters, see how they are, read the nodes' maps, run a lab."""
