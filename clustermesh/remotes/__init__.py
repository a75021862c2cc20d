"""Remote clusters as agents and kvstoremesh meet them: configuration, handshake, connection."""
