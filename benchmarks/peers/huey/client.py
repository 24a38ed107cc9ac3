"""Submits from threads and waits for each result."""

from app import echo
from load import threads

if __name__ == "__main__":
    threads(lambda body: echo(body).get(blocking=True, timeout=30, backoff=1, max_delay=0.001))
