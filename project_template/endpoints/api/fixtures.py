from __future__ import annotations

from flashfw import volume

from lib.users import Users


def users() -> Users:
    return Users(volume("data") / "users.sqlite3")
