"""One archive of everything from everywhere, without secrets."""
