"""Secrets of a server: encrypted where they are kept, in memory for the workers that need them."""
