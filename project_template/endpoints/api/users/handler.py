"""GET and POST /api/users"""

from __future__ import annotations

from flashfw import injected

from lib.users import NewUser, User, Users


def get(limit: int = 20, users: Users = injected) -> list[User]:
    return users.first(limit)


def post(user: NewUser, users: Users = injected) -> User:
    return users.add(user)
