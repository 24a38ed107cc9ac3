"""The HTTP server around the gateway: its socket, its connections, how much and how long a client may take."""
