"""What it costs to read a large tree: `collect`, `compile`, and both commands as a shell runs them.

    python benchmarks/collect.py [--endpoints 1000] [--rounds 5] [--json FILE]

The tree has jobs with parameters, fixtures and imports, classes, and HTTP with dynamic segments, in groups of a
hundred; every endpoint has an `endpoint.toml`. "again" is in the same process, as `flashfw dev` does after a save.
The least of the rounds is the one least disturbed by what else the machine did; the median tells how much that was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

JOB = '''"""Makes a picture of a prompt."""

from __future__ import annotations

from dataclasses import dataclass

from flashfw import Job, injected

from lib.model import Model


@dataclass
class Picture:
    width: int
    height: int
    rows: list[str]


def handler(job: Job, prompt: str, size: tuple[int, int] = (64, 64), model: Model = injected) -> Picture:
    """Draws it."""
    rows = []
    for step in range(20):
        rows.append(model.draw(prompt, step=step))
        job.progress((step + 1) / 20)
    return Picture(size[0], size[1], rows)
'''
CLASS = """from __future__ import annotations

from lib.model import Model


class handler:
    def __init__(self, model: Model) -> None:
        self.model = model

    def __call__(self, text: str, top: int = 3) -> list[float]:
        return self.model.embed(text)[:top]

    def many(self, texts: list[str]) -> list[list[float]]:
        return [self.model.embed(text) for text in texts]
"""
ROOT = """from __future__ import annotations

from lib.model import Model


def get(limit: int = 20, model: Model | None = None) -> list[str]:
    return ["a"] * limit


def post(user: dict[str, str]) -> dict[str, str]:
    return user
"""
ITEM = """from __future__ import annotations


def get(id: int) -> dict[str, int]:
    return {"id": id}


def delete(id: int) -> None: ...
"""
FIXTURES = """from __future__ import annotations

from collections.abc import Iterator

from lib.model import Model


def weights() -> str:
    return "weights"


def model(weights: str) -> Iterator[Model]:
    yield Model(weights)
"""
MODEL = """from __future__ import annotations


class Model:
    def __init__(self, weights: str) -> None:
        self.weights = weights

    def draw(self, prompt: str, *, step: int) -> str:
        return prompt[: step % 8]

    def embed(self, text: str) -> list[float]:
        return [float(ord(letter)) for letter in text]
"""
CONFIG = """gpu = ["L40S", ">=48GB"]
workers = [0, {workers}]
dependencies = ["...", "torch>=2.4"]
timeout = "5m"

[on.prod]
workers = [1, 20]
"""
PLAIN = "workers = {workers}\nidle_timeout = '2m'\n"
FLASHFW = Path(sys.executable).with_name("flashfw")


@dataclass(frozen=True)
class Figure:
    """One line of the table, in seconds; `cpu_s` is the least CPU time of a round."""

    what: str
    least_s: float
    median_s: float
    most_s: float
    cpu_s: float

    @classmethod
    def of(cls, what: str, rounds: list[Spent]) -> Figure:
        wall = [spent.wall_s for spent in rounds]
        return cls(what, min(wall), statistics.median(wall), max(wall), min(spent.cpu_s for spent in rounds))


class Spent(NamedTuple):
    """What one round took."""

    wall_s: float
    cpu_s: float

    @classmethod
    def since(cls, began: Spent) -> Spent:
        now = cls.now()
        return cls(now.wall_s - began.wall_s, now.cpu_s - began.cpu_s)

    @classmethod
    def now(cls) -> Spent:
        """The clock, and the CPU time of this process and of those that it waited for."""
        times = os.times()
        return cls(time.perf_counter(), times.user + times.system + times.children_user + times.children_system)


def make(folder: Path, endpoints: int) -> None:
    """Writes the tree: of ten endpoints five are jobs, two classes, three HTTP with two handlers each."""
    files = {
        "flashfw.toml": "[project]\nname = 'large'\n[environments.prod]\n",
        "pyproject.toml": "[project]\nname = 'large'\ndependencies = ['numpy']\n",
        "lib/model.py": MODEL,
        "endpoints/endpoint.toml": "dependencies = ['httpx']\n",
        "endpoints/fixtures.py": FIXTURES,
    }
    for number in range(endpoints):
        place, turn = f"endpoints/group_{number // 100}/e{number}", number % 10
        source = JOB if turn < 5 else CLASS if turn < 7 else ROOT
        files[f"{place}/handler.py"] = f"{source}\n\nNUMBER = {number}\n"  # no two files are the same
        files[f"{place}/endpoint.toml"] = (CONFIG if turn < 7 else PLAIN).format(workers=1 + number % 5)
        if turn >= 7:
            files[f"{place}/_id_/handler.py"] = f"{ITEM}\n\nNUMBER = {number}\n"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def figure(what: str, work: Callable[[], object], rounds: int) -> Figure:
    """The time of `work`, several times."""
    spent = []
    for _ in range(rounds):
        began = Spent.now()
        work()
        spent.append(Spent.since(began))
    return Figure.of(what, spent)


def command(folder: Path, *arguments: str) -> None:
    subprocess.run([FLASHFW, *arguments, "--root", folder], check=True, stdout=subprocess.DEVNULL)


def inside(folder: Path, times: int = 3) -> dict[str, Spent]:
    """What each stage takes in this process, the first time and the least of the others."""
    from flashfw.project import root
    from flashfw.project.collect import collect
    from flashfw.project.compile import compile as compile_project

    spent: dict[str, list[Spent]] = {"collect": [], "compile": []}
    for _ in range(times):
        began = Spent.now()
        project = collect(root.find(folder))
        spent["collect"].append(Spent.since(began))
        began = Spent.now()
        manifest, problems = compile_project(project)
        spent["compile"].append(Spent.since(began))
        assert not [*project.problems, *problems], [*map(str, project.problems), *map(str, problems)][:3]
        assert manifest.endpoints
    first = {name: values[0] for name, values in spent.items()}
    return first | {f"{name}, again": min(values[1:]) for name, values in spent.items()}


def stages(folder: Path, rounds: int) -> list[Figure]:
    """The stages in fresh processes."""
    code = f"import json, sys; sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r}); import collect"
    code += f"; from pathlib import Path; print(json.dumps(collect.inside(Path({str(folder)!r}))))"
    found: list[dict[str, list[float]]] = []
    for _ in range(rounds):
        done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(done.stdout))
    return [Figure.of(name, [Spent(*each[name]) for each in found]) for name in found[0]]


def main(endpoints: int, rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, endpoints)
        command(folder, "collect")  # the disk's cache is warm, as it is where somebody just edited
        return [
            *stages(folder, rounds),
            figure("flashfw --help", lambda: subprocess.run([FLASHFW, "--help"], check=True, stdout=-3), rounds),
            figure("flashfw collect", lambda: command(folder, "collect"), rounds),
            figure("flashfw collect -m any", lambda: command(folder, "collect", "-m", "not any"), rounds),
            figure("flashfw check", lambda: command(folder, "check"), rounds),
        ]


def table(figures: list[Figure]) -> str:
    rows = (f"{f.what:<24}{f.least_s:>9.3f}{f.median_s:>10.3f}{f.most_s:>9.3f}{f.cpu_s:>9.2f}" for f in figures)
    return "\n".join([f"{'seconds':<24}{'least':>9}{'median':>10}{'most':>9}{'cpu':>9}", *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    measured = main(options.endpoints, options.rounds)
    print(table(measured))
    machine = {"python": sys.version.split()[0], "cpus": os.cpu_count(), "platform": platform.platform()}
    document = {"endpoints": options.endpoints, **machine, "figures": [asdict(each) for each in measured]}
    print(json.dumps(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
