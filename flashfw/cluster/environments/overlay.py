"""The part of flashfw that ships beside user code, copied to where any interpreter can import it."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import flashfw

SHIPPED = ("__init__.py", "errors.py", "manifest.py", "py.typed")
LAUNCHERS = ("run_worker.py", "run_zygote.py")


class Overlay:
    """A copy of `flashfw/{__init__,errors,manifest,worker}` named by its content, with the launchers beside it.

    `<python> <overlay>/run_worker.py FD` then imports this flashfw and no other, whatever is installed
    in that interpreter's environment. Copies of other versions stay: their workers may still run.
    """

    def __init__(self, cache: Path, *, package: Path | None = None) -> None:
        self._cache = cache
        self._package = package or Path(flashfw.__file__).parent

    def path(self) -> Path:
        """The folder to run from, `<cache>/<content hash>`: made whole or not at all.

        Raises:
            OSError: the cache cannot be written.
        """
        files = self._files()
        target = self._cache / _digest(files)
        if not all((target / name).is_file() for name in files):
            self._make(files, target)
        return target

    def _files(self) -> dict[str, bytes]:
        """What the overlay holds. Read once, so that what is hashed is what is written."""
        sources = [self._package / name for name in SHIPPED]
        sources += sorted((self._package / "worker").rglob("*.py"))
        files = {f"flashfw/{path.relative_to(self._package).as_posix()}": path.read_bytes() for path in sources}
        return {**files, **{name: files[f"flashfw/worker/{name}"] for name in LAUNCHERS}}

    def _make(self, files: dict[str, bytes], target: Path) -> None:
        self._cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".new-", dir=self._cache))
        try:
            for name, data in files.items():
                copy = aside / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(data)
            _put(aside, target, files)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _put(aside: Path, target: Path, files: dict[str, bytes]) -> None:
    try:
        os.rename(aside, target)
    except OSError:
        if not target.is_dir():
            raise
        # Either another process was first, or something deleted files of it: fill in what is missing.
        for name in files:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside / name, target / name)


def _digest(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, data in files.items():
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()[:16]
