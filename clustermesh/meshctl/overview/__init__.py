"""One page about the whole mesh: what meshctl status shows."""
