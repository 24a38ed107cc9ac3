from typing import Any


def get(id: int, q: str = "") -> dict[str, Any]:
    return {"id": id, "q": q}


def put(id: int, name: str, tags: list[str]) -> dict[str, Any]:
    return {"id": id, "name": name, "tags": tags}
