"""The embedded platform: gateway, job store, dispatcher, autoscaler, workers."""
