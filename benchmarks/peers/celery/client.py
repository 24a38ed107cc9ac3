"""Submits from threads and waits for each result, which Redis announces (no polling)."""

from app import echo
from load import threads

if __name__ == "__main__":
    threads(lambda body: echo.delay(body).get(timeout=30))
