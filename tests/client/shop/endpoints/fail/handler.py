def handler(number: int) -> None:
    raise ValueError(f"no luck with {number}")
