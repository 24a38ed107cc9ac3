"""The front door: one raw ASGI callable that finds the function of a request and the way it is called."""
