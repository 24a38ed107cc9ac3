"""Files of the laptop that a worker missed in its release."""

from __future__ import annotations

import pytest

from flashfw.build.source import EXCLUDED, HIDDEN, IGNORED
from flashfw.ship.left_behind import left_behind
from flashfw.ship.target import Failure

LEFT_OUT = {"data/": IGNORED, ".words": HIDDEN, "a/b.txt": EXCLUDED, "prod.env": "credentials"}


def failure(path: str) -> Failure:
    message = f"FileNotFoundError: [Errno 2] No such file: '/srv/layers/ab12/{path}' (handler.py:2)"
    return Failure(endpoint="add", message=message)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("data/deep/words.txt", 'include = ["/data/deep/words.txt"]'),
        (".words", 'include = ["/.words"]'),
        ("a/b.txt", "build.exclude"),
        ("prod.env", "flashfw secret set"),
    ],
)
def test_what_stayed_is_told_with_the_reason_and_what_to_do(path: str, words: str) -> None:
    told = left_behind(failure(path), source="ab12", left_out=LEFT_OUT)

    assert told is not None
    assert told[0].startswith(f"{path} is on this machine and not in the release (")
    assert words in told[1]


@pytest.mark.parametrize("path", ["other/words.txt", "a/b.txt.old", "datafile"])
def test_nothing_is_said_of_what_is_not_there_either(path: str) -> None:
    assert left_behind(failure(path), source="ab12", left_out=LEFT_OUT) is None
    assert left_behind(failure(path), source="cd34", left_out={path: IGNORED}) is None
