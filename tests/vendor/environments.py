"""The vendor's packages, each in an environment of its own that outlives a run of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

DOWNLOAD_S = 300


def python_of(requirement: str) -> Path:
    """The interpreter of an environment that holds this package; made once per machine and version of Python.

    Without a registry the test is skipped, in CI (`CI=true`) it fails.
    """
    folder = _cache() / f"{requirement.replace('==', '-')}-py{sys.version_info[0]}.{sys.version_info[1]}"
    python = folder / "bin" / "python"
    if not python.exists():
        _make(folder, requirement)
    return python


def _make(folder: Path, requirement: str) -> None:
    """Aside, then renamed: another test process may make the same one, and neither may see half of it."""
    aside = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        _uv("venv", "--python", sys.executable, str(aside))
        _uv("pip", "install", "--python", str(aside / "bin" / "python"), requirement)
        aside.rename(folder)
    except subprocess.SubprocessError as error:
        why = f"{requirement} cannot be installed: {getattr(error, 'stderr', '') or error}"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    except OSError:
        if not folder.exists():  # the other one was first
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _uv(*arguments: str) -> None:
    command = [find_uv_bin(), "--quiet", *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=DOWNLOAD_S)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "flashfw-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
