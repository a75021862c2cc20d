"""This node: remote facts in, eBPF maps, routes and device out."""
