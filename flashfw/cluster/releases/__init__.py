"""The releases of a server: what was shipped to it, what is served, and how one takes the place of another."""
