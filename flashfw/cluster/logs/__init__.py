"""What the workers of a server wrote, and how they fared: a file per endpoint, read back and followed."""
