from collections.abc import Iterator


def handler(n: int) -> Iterator[int]:
    yield from range(n)
