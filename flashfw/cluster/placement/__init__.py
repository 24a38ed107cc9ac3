"""Where workers run: one protocol, one implementation so far."""
