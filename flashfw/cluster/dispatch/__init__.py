"""Calls brought to workers: jobs from the store, HTTP calls held in memory."""
