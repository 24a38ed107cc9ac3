"""What `create` writes, and what it refuses."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.errors import UsageError
from flashfw.project import template


def test_writes_every_file_and_names_it(tmp_path: Path) -> None:
    created = template.create(tmp_path / "shop")

    assert created.name == "shop"
    assert created.path == tmp_path / "shop"
    assert sorted(created.files) == sorted(
        file.relative_to(created.path).as_posix() for file in created.path.rglob("*") if file.is_file()
    )
    assert {"flashfw.toml", "endpoints/hello/handler.py", ".gitignore"} <= set(created.files)


def test_the_name_replaces_every_placeholder(tmp_path: Path) -> None:
    created = template.create(tmp_path / "shop")

    assert 'name = "shop"' in (created.path / "flashfw.toml").read_text()
    assert [file for file in created.files if "{{" in (created.path / file).read_text()] == []


def test_an_empty_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    monkeypatch.chdir(folder)

    created = template.create(Path())

    assert created.name == "shop"
    assert (folder / "flashfw.toml").is_file()


def test_parents_are_made(tmp_path: Path) -> None:
    assert template.create(tmp_path / "a" / "b" / "shop").path.is_dir()


def test_a_folder_that_is_not_empty_is_refused_with_what_is_there(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"file{number}").touch()

    with pytest.raises(UsageError, match="is not empty: file0, file1, file2, file3, file4 and 2 more"):
        template.create(_named(tmp_path))

    assert len(list(tmp_path.iterdir())) == 7


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shop").touch()

    with pytest.raises(UsageError, match="is a file"):
        template.create(tmp_path / "shop")


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shop").symlink_to(tmp_path / "gone")

    with pytest.raises(UsageError, match="is a link to nowhere"):
        template.create(tmp_path / "shop")


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("My Shop", "my-shop"),
        ("MyShop", "my-shop"),
        ("2shops", "shops"),
        ("shop!", "shop"),
        ("shop--x", "shop-x"),
        ("_shop", "shop"),
        ("Größe", "gr-e"),
    ],
)
def test_a_bad_name_is_refused_with_a_better_one(tmp_path: Path, name: str, better: str) -> None:
    with pytest.raises(UsageError) as refused:
        template.create(tmp_path / name)

    assert repr(name) in refused.value.what
    assert refused.value.hint == f"did you mean {str(tmp_path / better)!r}?"
    assert list(tmp_path.iterdir()) == []


@given(st.text(min_size=1, max_size=30))
def test_a_better_name_is_always_a_name(name: str) -> None:
    better = template.nearest_name(name)

    assert better == "" or template.is_name(better)
    assert better == name or not template.is_name(name)


def test_nothing_is_left_behind_when_writing_fails(tmp_path: Path) -> None:
    with _largest_file(100), pytest.raises(UsageError, match="File too large") as refused:
        template.create(tmp_path / "a" / "shop")

    assert "nothing was left behind" in str(refused.value)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []
    assert not (tmp_path / "a" / "shop").exists()


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _named(folder: Path) -> Path:
    """The folder under a name that a project may have."""
    link = folder.parent / "shop"
    link.symlink_to(folder)
    return link
