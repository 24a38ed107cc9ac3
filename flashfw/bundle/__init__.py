"""What travels from a laptop to a server: the record of a release, and archives that are safe to read."""
