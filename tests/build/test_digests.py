"""Hashes that are kept: for a file that nothing says was changed, and for no other."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from flashfw.build.digests import Digests

SECOND_NS = 1_000_000_000


def sha256(digests: Digests, file: Path) -> str:
    handle = os.open(file, os.O_RDONLY)
    try:
        return digests.of("model.bin", handle, os.fstat(handle))
    finally:
        os.close(handle)


def test_a_hash_is_kept_once_a_further_change_would_have_another_date(tmp_path: Path) -> None:
    file, kept = tmp_path / "model.bin", tmp_path / "digests.json"
    file.write_bytes(b"weights")
    right, changed_ns = hashlib.sha256(b"weights").hexdigest(), file.stat().st_ctime_ns

    early = Digests(kept, now_ns=changed_ns + SECOND_NS)
    assert sha256(early, file) == right
    early.save()
    assert not kept.exists(), "the file may be another one, within the same tick of its file system"

    late = Digests(kept, now_ns=changed_ns + 3 * SECOND_NS)
    assert sha256(late, file) == right
    late.save()
    noted = json.loads(kept.read_text())
    assert noted["model.bin"][-1] == right

    kept.write_text(json.dumps({"model.bin": [*noted["model.bin"][:-1], "as noted"]}))
    assert sha256(Digests(kept, now_ns=changed_ns + 9 * SECOND_NS), file) == "as noted", "it was read again"
    file.write_bytes(b"other weights")
    assert (
        sha256(Digests(kept, now_ns=changed_ns + 9 * SECOND_NS), file) == hashlib.sha256(b"other weights").hexdigest()
    )


def test_a_damaged_file_of_hashes_is_an_empty_one(tmp_path: Path) -> None:
    file, kept = tmp_path / "model.bin", tmp_path / "digests.json"
    file.write_bytes(b"weights")
    for text in ("", "[]", '{"model.bin": 1}', '{"model.bin": []}', "[" * 100_000):
        kept.write_text(text)
        assert sha256(Digests(kept, now_ns=0), file) == hashlib.sha256(b"weights").hexdigest()
