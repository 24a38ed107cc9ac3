def handler(n: int) -> int:
    return n
