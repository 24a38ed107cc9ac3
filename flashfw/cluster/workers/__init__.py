"""The workers of an endpoint: how many there should be, their start, their link, their end."""
