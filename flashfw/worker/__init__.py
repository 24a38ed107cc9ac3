"""What runs beside user code and ships with it: loads handlers, binds input, runs calls, talks to the gateway."""
