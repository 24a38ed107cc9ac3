"""Keys of a server: what they are, where they are kept, whom a request comes from."""
