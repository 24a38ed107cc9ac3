from __future__ import annotations

import pytest

from flashfw.cluster.gateway.suggestions import Suggestions

MANY = [f"/group_{number // 100}/endpoint_{number}" for number in range(1_000)]


@pytest.mark.parametrize(
    ("names", "given", "meant"),
    [
        (["/api/users", "/gpu_a100"], "/gpu_a10", "/gpu_a100"),
        (["/api/users", "/gpu_a100"], "/wp-login.php", None),
        ([], "/x", None),
        (MANY, "/grop_1/endpoint_150", "/group_1/endpoint_150"),  # by its end
        (MANY, "/group_1/endpont_150", "/group_1/endpoint_150"),
        (MANY, "/group_9/endpoint_999x", "/group_9/endpoint_999"),  # by its beginning
        (MANY, "/favicon.ico", None),
        (MANY, "/" + "a/" * 4_000, None),
    ],
)
def test_the_name_that_is_meant_is_found_among_however_many(names: list[str], given: str, meant: str | None) -> None:
    assert Suggestions(names).closest(given) == meant


def test_few_names_are_all_compared() -> None:
    names = [f"/{letter}bcdefgh" for letter in "ijklmnopqrstuv"]

    assert Suggestions(names).closest("/abcdefgj") in names
