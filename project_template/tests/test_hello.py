from __future__ import annotations

from endpoints.hello.handler import Statistics, handler


def test_counts_words() -> None:
    assert handler("the cat and the hat", top=1) == Statistics(
        words=5, different=4, longest="the", most_common={"the": 2}
    )


def test_an_empty_text_has_no_words() -> None:
    assert handler("") == Statistics(words=0, different=0, longest="", most_common={})
