"""The folder of finished archives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flashfw.build.store import Store, StoreError
from flashfw.bundle.archive import ASIDE, ArchiveError, Entry


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "layers")


def test_what_was_added_is_found(store: Store) -> None:
    added = store.add("a", [Entry("x", b"x")], {"sizes": {"x": 1}}, durable=True)

    assert store.find("a") == added
    assert added.packed_bytes == added.file.stat().st_size
    assert store.find("b") is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"digest": "../x", "size_bytes": 1, "packed_bytes": 1, "facts": {}}']
)
def test_a_damaged_note_is_none(store: Store, text: str) -> None:
    added = store.add("a", [Entry("x", b"x")], {})
    added.file.with_name("a.json").write_text(text)

    assert store.find("a") is None


def test_an_archive_without_its_note_does_not_count(store: Store) -> None:
    added = store.add("a", [Entry("x", b"x")], {})
    added.file.with_name("a.json").unlink()

    assert store.find("a") is None


def test_what_cannot_be_packed_leaves_nothing(store: Store) -> None:
    with pytest.raises(ArchiveError):
        store.add("a", [Entry("../x", b"x")], {})

    assert os.listdir(store.folder) == []


def test_the_newest_are_kept(store: Store) -> None:
    for number, name in enumerate("abcd"):
        added = store.add(name, [Entry("x", name.encode())], {})
        os.utime(added.file.with_name(f"{name}.json"), (number, number))
    store.find("a")
    store.keep_newest(2)

    assert sorted(os.listdir(store.folder)) == ["a.json", "a.tar.zst", "d.json", "d.tar.zst"]


def test_what_killed_builds_left_is_swept_a_day_later(store: Store) -> None:
    store.open()
    (store.folder / f"{ASIDE}x").mkdir()
    now_s = (store.folder / f"{ASIDE}x").stat().st_mtime
    store.sweep(now_s=now_s + 3600)
    assert len(os.listdir(store.folder)) == 1
    store.sweep(now_s=now_s + 100_000)
    assert os.listdir(store.folder) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match="cannot write to"):
        Store(tmp_path / "file" / "layers").open()
