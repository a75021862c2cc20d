"""The version, as a constant: reading package metadata costs every start 20 ms."""

VERSION = "0.1.0"
