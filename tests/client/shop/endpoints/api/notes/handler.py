def post(body: bytes) -> dict[str, int]:
    return {"size": len(body)}
