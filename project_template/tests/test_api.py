from __future__ import annotations

from pathlib import Path

import pytest
from flashfw import HTTPError

from endpoints.api.users._id_ import handler as one
from endpoints.api.users.handler import get, post
from lib.users import NewUser, Users


@pytest.fixture
def users(tmp_path: Path) -> Users:
    return Users(tmp_path / "users.sqlite3")


def test_a_new_user_is_listed(users: Users) -> None:
    user = post(NewUser(name="Ada", languages=["python"]), users=users)

    assert get(users=users) == [user]
    assert one.get(user.id, users=users) == user


def test_a_removed_user_is_gone(users: Users) -> None:
    user = post(NewUser(name="Ada"), users=users)

    one.delete(user.id, users=users)

    with pytest.raises(HTTPError):
        one.get(user.id, users=users)
