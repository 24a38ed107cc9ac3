from __future__ import annotations

import pytest

import flashfw
from flashfw.worker.markers import MARKERS, Body, Cookie, Form, Header, Query


@pytest.mark.parametrize("marker", MARKERS)
def test_markers_are_public_and_need_no_argument(marker: type) -> None:
    assert getattr(flashfw, marker.__name__) is marker
    assert marker() == marker()


def test_markers_with_a_name_on_the_wire_keep_it() -> None:
    assert [marker("x-y").alias for marker in (Query, Header, Cookie, Form)] == ["x-y"] * 4
    assert Body(embed=True).embed
