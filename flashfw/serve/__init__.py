"""The cluster as a server: a data directory, a process that holds the socket, and one that answers."""
