"""Who may believe whom: authorities, bundles, join tokens, expiry (docs/trust.md)."""
