from flashfw import HTTPError


def handler(number: int) -> None:
    if number == 404:
        raise HTTPError(404, "no such order")
    raise ValueError(f"no luck with {number}")
