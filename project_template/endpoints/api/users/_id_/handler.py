"""GET and DELETE /api/users/{id}"""

from __future__ import annotations

from flashfw import HTTPError, injected

from lib.users import User, Users


def get(id: int, users: Users = injected) -> User:
    user = users.find(id)
    if user is None:
        raise HTTPError(404, f"no user {id}")
    return user


def delete(id: int, users: Users = injected) -> None:
    if not users.remove(id):
        raise HTTPError(404, f"no user {id}")
