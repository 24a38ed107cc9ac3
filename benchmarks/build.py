"""What a build takes, and what travels after it: `flashfw build` beside `flash build` of runpod-flash 1.21.0.

    python benchmarks/build.py [--rounds 5] [--json FILE]

The same three functions and dependencies, each tool in its own environment, in turn, process start included. "first"
begins without what the tool keeps between builds (flashfw also resolves its lock then); what was downloaded stays
cached for both. "unchanged" and "one line" come after it. The peer is installed from the package index; where that
cannot be reached its column is empty, and the output says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import servers

PEER = "runpod-flash==1.21.0"
PYTHON = "3.11"
DEPENDENCIES = ["numpy==2.2.1", "pillow==11.1.0", "httpx==0.28.1"]
FUNCTIONS = ("embed", "resize", "fetch")
BODY = "    import numpy\n\n    return {'sum': float(numpy.ones(3).sum()), 'edit': 0}\n"

Run = Callable[[], object]


@dataclass(frozen=True)
class Figure:
    """One line of the table: seconds of a build, and how many bytes a deployment sends after it."""

    tool: str
    what: str
    count: int
    p50_s: float
    least_s: float
    upload_bytes: int


class Flashfw:
    """A project of ours; its cache of layers is a folder beside it."""

    name = "flashfw"

    def __init__(self, folder: Path) -> None:
        self.root = folder / "ours"
        self.cache = folder / "cache"
        files = {"flashfw.toml": f'[project]\nname = "bench"\npython = "{PYTHON}"\n'}
        files["pyproject.toml"] = (
            f'[project]\nname = "bench"\nversion = "0"\ndependencies = {json.dumps(DEPENDENCIES)}\n'
        )
        for function in FUNCTIONS:
            files[f"endpoints/{function}/handler.py"] = f"def handler(input: dict) -> dict:\n{BODY}"
        write(self.root, files)
        self.edited = self.root / "endpoints/embed/handler.py"

    def forget(self) -> None:
        for path in (self.root / ".flashfw", self.cache):
            shutil.rmtree(path, ignore_errors=True)
        (self.root / "flashfw.lock").unlink(missing_ok=True)

    def build(self) -> int:
        variables = {**servers.environ(), "XDG_CACHE_HOME": str(self.cache), "UV_CACHE_DIR": uv_cache()}
        command = [servers.FLASHFW, "build", "--json"]
        made = subprocess.run(command, cwd=self.root, env=variables, check=True, capture_output=True, text=True)
        document = json.loads(made.stdout)
        layers = [document["source"], *document["packages"]]
        return sum(layer["packed_bytes"] for layer in layers if not layer["unchanged"])


class Flash:
    """The same as one module of decorated functions."""

    name = "flash"

    def __init__(self, folder: Path, program: str) -> None:
        self.root = folder / "theirs"
        self.program = program
        lines = ["from runpod_flash import Endpoint\n"]
        for function in FUNCTIONS:
            declared = f'@Endpoint(name="{function}", cpu="cpu3c-1-2", dependencies={json.dumps(DEPENDENCIES)})'
            lines.append(f"\n\n{declared}\nasync def {function}(input: dict) -> dict:\n{BODY}")
        write(self.root, {"worker.py": "".join(lines)})
        self.edited = self.root / "worker.py"

    def forget(self) -> None:
        shutil.rmtree(self.root / ".flash", ignore_errors=True)

    def build(self) -> int:
        variables = {**servers.environ(), "FLASH_NO_UPDATE_CHECK": "1", "CI": "true"}
        command = [self.program, "build", "--python-version", PYTHON]
        subprocess.run(command, cwd=self.root, env=variables, check=True, capture_output=True, text=True)
        return (self.root / ".flash/artifact.tar.gz").stat().st_size


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


def uv_cache() -> str:
    return subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()


def peer(folder: Path) -> str:
    """The program of the peer, in an environment of its own; empty where it cannot be installed."""
    environment = folder / "peer"
    python = environment / "bin" / "python"
    try:
        subprocess.run(["uv", "venv", "-q", "--seed", "--python", PYTHON, environment], check=True, capture_output=True)
        subprocess.run(["uv", "pip", "install", "-q", "--python", python, PEER], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (
            error.stderr.decode(errors="replace").strip() if isinstance(error, subprocess.CalledProcessError) else error
        )
        print(f"{PEER} is skipped, it cannot be installed: {reason}", file=sys.stderr)
        return ""
    return str(environment / "bin" / "flash")


def measured(tools: list[Flashfw | Flash], rounds: int) -> Iterator[Figure]:
    seconds: dict[tuple[str, str], list[float]] = {}
    sizes: dict[tuple[str, str], int] = {}

    def note(tool: Flashfw | Flash, what: str) -> None:
        begin = time.perf_counter()
        sizes[tool.name, what] = tool.build()
        seconds.setdefault((tool.name, what), []).append(time.perf_counter() - begin)

    for tool in tools:  # fills the caches of downloads
        tool.build()
    for number in range(rounds):
        for tool in tools:
            tool.forget()
            note(tool, "first")
            note(tool, "unchanged")
            text = tool.edited.read_text("utf-8")
            tool.edited.write_text(text.replace(f"'edit': {number}", f"'edit': {number + 1}"), encoding="utf-8")
            note(tool, "one line")
    for (name, what), found in seconds.items():
        yield Figure(
            name, what, len(found), round(statistics.median(found), 3), round(min(found), 3), sizes[name, what]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # uv
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = peer(folder)
        tools: list[Flashfw | Flash] = [Flashfw(folder), *([Flash(folder, program)] if program else [])]
        figures = list(measured(tools, options.rounds))
    print(json.dumps({**servers.machine(), "peer": PEER if program else "skipped"}))
    print(f"{'':24}{'p50':>10}{'least':>10}{'to send':>12}")
    for found in figures:
        label = f"{found.tool} build, {found.what}"
        print(f"{label:24}{found.p50_s:>8.2f} s{found.least_s:>8.2f} s{found.upload_bytes / 1000:>9,.1f} KB")
    if options.json:
        options.json.write_text(json.dumps([asdict(found) for found in figures], indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
