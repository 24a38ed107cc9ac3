"""Environments of peers: made by uv on first use under `.bench/`, from the pins in `peers/NAME/requirements.txt`."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from turns import Missing

PEERS = Path(__file__).resolve().parent / "peers"
FOLDER = Path(__file__).resolve().parent.parent / ".bench"


@cache
def programs(peer: str) -> Path:
    """The folder of the programs of a peer's environment; made anew when its pins or the Python are others.

    Raises:
        Missing: it cannot be installed.
    """
    environment, pins = FOLDER / peer, PEERS / peer / "requirements.txt"
    made_of = hashlib.sha256(f"{platform.python_version()}\n{pins.read_text('utf-8')}".encode()).hexdigest()
    mark = environment / "made-of"
    if not mark.exists() or mark.read_text("utf-8") != made_of:
        shutil.rmtree(environment, ignore_errors=True)
        _uv("venv", "--python", sys.executable, str(environment))
        _uv("pip", "install", "--python", str(environment / "bin/python"), "--requirement", str(pins))
        mark.write_text(made_of, encoding="utf-8")
    return environment / "bin"


def _uv(*arguments: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-m", "uv", "--quiet", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"cannot be installed: {' '.join(done.stderr.split())[:200]}")


def pinned(peer: str) -> dict[str, str]:
    """The versions of what was asked for: the names in the first line of the peer's requirements."""
    head, *lines = (PEERS / peer / "requirements.txt").read_text("utf-8").splitlines()
    versions = {
        name: rest.split()[0].rstrip(";") for name, same, rest in (line.partition("==") for line in lines) if same
    }
    return {name: versions[name] for word in head.lstrip("# ").split() if (name := word.partition("[")[0]) in versions}
