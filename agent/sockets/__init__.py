"""Established sockets of backends that are gone (contract datapath 3.7)."""
