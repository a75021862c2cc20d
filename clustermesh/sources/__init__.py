"""Where the local cluster's objects come from."""
