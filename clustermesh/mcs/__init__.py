"""Multi-Cluster Services API, import side: what clusters export becomes services of this one."""
