"""The part of flashfw that ships beside user code, copied where any interpreter can import it."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import flashfw

SHIPPED = ("__init__.py", "errors.py", "manifest.py", "py.typed")
LAUNCHER = "run_worker.py"


class Overlay:
    """A copy of `flashfw/{__init__,errors,manifest,worker}` by content, with the launcher beside it."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._package = Path(flashfw.__file__).parent

    def path(self) -> Path:
        """The folder to run from: `<cache>/<content hash>`, made whole or not at all."""
        files = list(self._files())
        digest = hashlib.sha256()
        for relative in files:
            data = (self._package / relative).read_bytes()
            digest.update(f"{relative.as_posix()}\0{len(data)}\0".encode() + data)
        target = self._cache / digest.hexdigest()[:16]
        if not target.is_dir():
            self._make(files, target)
        return target

    def _files(self) -> Iterator[Path]:
        yield from map(Path, SHIPPED)
        for path in sorted((self._package / "worker").rglob("*.py")):
            yield path.relative_to(self._package)

    def _make(self, files: list[Path], target: Path) -> None:
        self._cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".new-", dir=self._cache))
        for relative in files:
            copy = aside / "flashfw" / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._package / relative, copy)
        shutil.copyfile(self._package / "worker" / LAUNCHER, aside / LAUNCHER)
        aside.chmod(0o755)
        try:
            os.rename(aside, target)
        except OSError:
            # Another process made the same one first.
            shutil.rmtree(aside, ignore_errors=True)
            if not target.is_dir():
                raise
