"""`flashfw secret`: what is typed or piped in arrives whole, and is shown to nobody."""

from __future__ import annotations

import json

import pytest

from flashfw.errors import Exit
from tests.cli.administered import Administered
from tests.cli.test_key import Run, home, made, run, server

__all__ = ["home", "run", "server"]


@pytest.fixture
def key(server: Administered) -> str:
    return made(server)


def test_a_secret_is_set_listed_and_removed(run: Run, server: Administered, key: str) -> None:
    set_ = run("secret", "set", "prod", "TOKEN", key=key, stdin=b" hunter-22\n\n")
    assert (set_.returncode, set_.stdout, set_.stderr) == (Exit.DONE, "set  TOKEN; new workers for gpu\n", "")
    assert dict(server.secrets.values) == {"TOKEN": " hunter-22\n"}, "one newline is left out"
    assert server.rolled == ["TOKEN"]
    again = run("secret", "set", "prod", "TOKEN", "-", key=key, stdin=b" hunter-22\n\r\n")
    assert again.stdout == "unchanged  TOKEN had this value\n"

    assert run("secret", "list", "prod", key=key).stdout.split()[0] == "TOKEN"
    listed = run("secret", "list", "prod", "--json", key=key).stdout
    assert json.loads(listed)["secrets"][0]["endpoints"] == ["gpu"]
    assert "hunter" not in listed

    refused = run("secret", "remove", "prod", "TOKEN", key=key)
    assert (refused.returncode, refused.stdout) == (Exit.TARGET, "")
    assert "gpu of the current release needs the secret TOKEN" in refused.stderr
    assert "TOKEN" in server.secrets.values
    assert run("secret", "remove", "prod", "TOKEN", "--force", key=key).returncode == Exit.DONE
    assert run("secret", "remove", "prod", "TOKEN", "--force", key=key).returncode == Exit.USAGE
    assert "no secrets" in run("secret", "list", "prod", key=key).stderr


def test_a_value_on_the_command_line_is_warned_of(run: Run, server: Administered, key: str) -> None:
    done = run("secret", "set", "prod", "OTHER", "hunter-22", key=key)

    assert (done.returncode, done.stdout) == (Exit.DONE, "set  OTHER; nothing that is served there names it\n")
    assert "history" in done.stderr
    assert "hunter" not in done.stderr
    assert dict(server.secrets.values) == {"OTHER": "hunter-22"}


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (["set", "prod", "a-b"], b"", Exit.USAGE, "'a-b' is no name of a variable: letters, digits and _, as in HF"),
        (["set", "prod", "A"], b"", Exit.USAGE, "the value is empty"),
        (["set", "prod", "A"], b"a\0b", Exit.USAGE, "NUL"),
        (["set", "prod", "A"], b"\xff\xfe", Exit.USAGE, "no text in UTF-8"),
        (["set", "prod", "A"], b"x" * 70_000, Exit.USAGE, "at most 65536"),
        (["set", "dev", "A"], b"x", Exit.USAGE, "a line of .env"),
        (["set", "nowhere", "A"], b"x", Exit.USAGE, "no environment 'nowhere'"),
        (["remove", "prod", "A/B?c"], b"", Exit.USAGE, "there is no secret"),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(
    run: Run, server: Administered, key: str, arguments: list[str], stdin: bytes, code: int, said: str
) -> None:
    done = run("secret", *arguments, key=key, stdin=stdin)

    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert server.secrets.all() == []
