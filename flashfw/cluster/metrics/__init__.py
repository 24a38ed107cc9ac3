"""What a server counts and measures, for Prometheus: from events that are told anyway."""
