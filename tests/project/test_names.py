"""Names of directories: what may be part of a path, what is skipped, how a bad one is mended."""

from __future__ import annotations

import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.project import names

PLAIN = st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("api", None),
        ("gpu_a100", None),
        ("a", None),
        ("match", None),  # a soft keyword imports
        ("_id_", None),
        ("_user_id_", None),
        ("Users", "users"),
        ("gpu-a100", "gpu_a100"),
        ("gpu a100", "gpu_a100"),
        ("v1.5", "v1_5"),
        ("2d", "n2d"),
        ("café", "caf"),
        ("a\nb", "a_b"),
        ("api\n", "api"),
        ("class", "class_"),
        ("async", "async_"),
        ("_Id_", "_id_"),
        ("_1_", "_n1_"),
        ("_class_", "_class__"),
        ("_user-id_", "_user_id_"),
        ("[id]", "_id_"),
        ("[...rest]", "_rest_"),
        ("{user_id}", "_user_id_"),
        ("<id>", "_id_"),
        (":id", "_id_"),
        ("$id", "_id_"),
        ("(group)", "_group_"),
    ],
)
def test_a_flaw_says_how_to_mend_the_name(name: str, wanted: str | None) -> None:
    flaw = names.flaw(name)

    assert (flaw is None) == (wanted is None)
    if flaw is not None:
        assert repr(name) in flaw[0]
        assert flaw[1] == f"rename it to {wanted!r}"


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("_id_", "id"),
        ("_x_", "x"),
        ("_user_id_", "user_id"),
        ("_a-b_", "a-b"),
        ("id", None),
        ("_id", None),
        ("id_", None),
        ("_", None),
        ("__", None),
        ("___", None),
        ("__id__", None),
        ("__init__", None),
    ],
)
def test_a_dynamic_segment_is_a_name_between_single_underscores(name: str, parameter: str | None) -> None:
    assert names.parameter(name) == parameter


@pytest.mark.parametrize("name", ["_private", "_", "__", "__pycache__", "__id__", ".git", ".", "_a_b"])
def test_private_and_hidden_names_are_skipped(name: str) -> None:
    assert names.is_skipped(name)


@pytest.mark.parametrize("name", ["api", "_id_", "Bad-Name", "class", "2d", "[id]"])
def test_other_names_are_not_skipped_so_that_a_bad_one_is_told(name: str) -> None:
    assert not names.is_skipped(name)


@pytest.mark.parametrize(
    ("file", "meant"),
    [
        ("handlers.py", "handler.py"),
        ("Handler.py", "handler.py"),
        ("handle.py", "handler.py"),
        ("fixture.py", "fixtures.py"),
        ("middlewares.py", "middleware.py"),
        ("endpoints.toml", "endpoint.toml"),
        ("endpoint.yaml", "endpoint.toml"),
        ("endpoint.tml", "endpoint.toml"),
        ("handler.py", None),
        ("endpoint.py", None),
        ("handler.toml", None),
        ("model.py", None),
        ("config.toml", None),
        ("README.md", None),
    ],
)
def test_a_misspelt_special_name_is_recognised(file: str, meant: str | None) -> None:
    assert names.misspelt(file) == meant


@given(st.text(min_size=1))
def test_every_suggestion_is_allowed(name: str) -> None:
    assert names.flaw(names.suggest(name)) is None


@given(PLAIN.filter(lambda name: not keyword.iskeyword(name)))
def test_allowed_names_are_their_own_suggestion_up_to_outer_underscores(name: str) -> None:
    assert names.is_component(name)
    assert names.flaw(name) is None
    assert names.suggest(name).strip("_") == name.strip("_") or keyword.iskeyword(name.strip("_"))


@given(st.text(min_size=1))
def test_a_name_is_skipped_dynamic_or_plain_but_never_two_of_them(name: str) -> None:
    kinds = [names.is_skipped(name), names.parameter(name) is not None, names.is_component(name)]

    assert sum(kinds) <= 1
