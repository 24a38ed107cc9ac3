"""The documents of what is served: OpenAPI, and the page that shows it."""
