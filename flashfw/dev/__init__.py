"""The development server: the embedded cluster over a working tree, rolling what a saved file changes."""
