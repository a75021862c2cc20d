"""What the node's network needs besides programs: a device, routes, addresses, a few rules."""
