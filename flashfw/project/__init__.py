"""From a tree of files to a `Project`, and from there to a `Manifest`, without ever running user code."""
