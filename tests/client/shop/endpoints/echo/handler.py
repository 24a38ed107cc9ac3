from typing import Any


def handler(input: Any) -> Any:
    """Answer what came."""
    return input
