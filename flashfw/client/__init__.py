"""A client of the job API; the CLI's `call` uses it."""
