"""How long from a saved file to its new answer: `flashfw dev` beside `uvicorn --reload` over bare Starlette.

    python benchmarks/reload.py [--edits 50] [--slow-edits 10] [--json FILE]

A handler's file is written, then its endpoint asked every 2 ms until the new answer comes; the servers take turns, and
pauses differ, so that no watcher's rhythm agrees with ours. In the slow project a fixture takes 5 s to build; its peer
spends them at import, where such things are loaded there. "restarted": the edit is of a quick fixtures.py, so that a
new process has to start. "same length": two edits of equal length 100 ms apart, timed from the second one; `both`
counts the pairs of which each answer was seen, `last` those whose second one was seen within 3 s.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import servers
from startup import Figure, figure

DEADLINE_S = 30.0
PAIR_DEADLINE_S = 3.0
APART_S = 0.1
EVERY_S = 0.002
LOAD_S = 5

HANDLER = "endpoints/edited/handler.py"
FLASHFW = {
    "flashfw.toml": '[project]\nname = "bench"\n',
    "endpoints/edited/endpoint.toml": "workers = [1, 1]\n",
    HANDLER: "async def get(model):\n    return 0\n",
    "endpoints/fixtures.py": "def model():\n    return 0\n",
}
LOADING = f"import time\n\n\ndef model():\n    time.sleep({LOAD_S})\n    return 0\n"
LOADED = f"import time\n\ntime.sleep({LOAD_S})\n\n\nasync def get():\n"


@dataclass(frozen=True)
class Pairs(Figure):
    """A line of the table for edits in pairs."""

    both: int
    last: int


@dataclass(frozen=True)
class Edited:
    """A file that is edited, and who answers for it: `text` gives its content for an answer."""

    file: Path
    url: str
    text: Callable[[int], str]

    def answers(self) -> object:
        return servers.answer(self.url, "GET", "/edited")

    def wait(self, number: int, deadline_s: float) -> bool:
        """Whether the answer came in time."""
        until = time.perf_counter() + deadline_s
        while self.answers() != number:
            if time.perf_counter() > until:
                return False
            time.sleep(EVERY_S)
        return True

    def edit(self, number: int) -> float:
        """Seconds from the save to its answer."""
        begin = time.perf_counter()
        self.file.write_text(self.text(number))
        if not self.wait(number, DEADLINE_S):
            raise SystemExit(f"{self.file} was saved, and {self.url} did not follow within {DEADLINE_S:g} s")
        return time.perf_counter() - begin

    def pair(self, number: int) -> tuple[bool, float | None]:
        """Whether the first answer was seen, and seconds from the second save to its own; None if it never came."""
        self.file.write_text(self.text(number))
        second = time.perf_counter() + APART_S
        seen = False
        while time.perf_counter() < second:
            seen = seen or self.answers() == number
            time.sleep(EVERY_S)
        begin = time.perf_counter()
        self.file.write_text(self.text(number + 1))
        return seen, time.perf_counter() - begin if self.wait(number + 1, PAIR_DEADLINE_S) else None


def grows(head: str) -> Callable[[int], str]:
    # Of another size each time: Python takes byte-code of the same second and size for fresh.
    return lambda number: f"{head}    return {number}\n{number % 50 * '#'}\n"


def same_length(head: str) -> Callable[[int], str]:
    return lambda number: f"{head}    return {number}\n"


def breathe(number: int) -> None:
    time.sleep(0.1 + 0.013 * (number % 10))


def in_turn(count: int, edited: dict[str, Edited], first: int) -> Iterator[Figure]:
    taken: dict[str, list[float]] = {what: [] for what in edited}
    for number in range(first, first + count + 1):
        for what, each in edited.items():
            taken[what].append(each.edit(number))
            breathe(number)
    yield from (figure(what, seconds[1:]) for what, seconds in taken.items())


def pairs(count: int, edited: dict[str, Edited], first: int) -> Iterator[Pairs]:
    for what, each in edited.items():
        found: list[tuple[bool, float | None]] = []
        for number in range(first, first + 2 * count, 2):
            found.append(each.pair(number))
            breathe(number)
        seconds = [second for _, second in found if second is not None]
        line = figure(what, seconds or [PAIR_DEADLINE_S])
        yield Pairs(**{**asdict(line), "count": count}, both=sum(seen for seen, _ in found), last=len(seconds))


def quick(count: int) -> Iterator[Figure]:
    with ExitStack() as stack:
        project, other = (stack.enter_context(servers.folder(each)) for each in (FLASHFW, servers.STARLETTE))
        dev = stack.enter_context(servers.flashfw_dev(project))
        bare = stack.enter_context(servers.starlette(other, "--reload"))
        ours, theirs = "async def get(model):\n", "async def get():\n"

        def both(text: Callable[[str], Callable[[int], str]]) -> tuple[Edited, Edited]:
            own = Edited(project / HANDLER, dev.url, text(ours))
            return own, Edited(other / "edited.py", bare.url, text(theirs))

        def named(what: str, two: tuple[Edited, Edited]) -> dict[str, Edited]:
            return {f"flashfw dev{what}": two[0], f"uvicorn --reload{what}": two[1]}

        yield from in_turn(count, named("", both(grows)), 1000)
        yield from pairs(count, named(", same length, 100 ms apart", both(same_length)), 2000)
        handler = Edited(project / HANDLER, dev.url, same_length(ours))
        handler.file.write_text("async def get(model):\n    return model\n")
        handler.wait(0, DEADLINE_S)
        fixtures = Edited(project / "endpoints/fixtures.py", dev.url, grows("def model():\n"))
        yield from in_turn(count, {"flashfw dev, restarted": fixtures}, 5000)


def slow(count: int, slow_count: int) -> Iterator[Figure]:
    loading = {
        **servers.STARLETTE,
        "edited.py": f"import time\n\ntime.sleep({LOAD_S})\n\n\nasync def get():\n    return 0\n",
    }
    with ExitStack() as stack:
        project = stack.enter_context(servers.folder({**FLASHFW, "endpoints/fixtures.py": LOADING}))
        other = stack.enter_context(servers.folder(loading))
        dev = stack.enter_context(servers.flashfw_dev(project))
        bare = stack.enter_context(servers.starlette(other, "--reload"))
        ours = Edited(project / HANDLER, dev.url, grows("async def get(model):\n"))
        theirs = Edited(
            other / "edited.py", bare.url, grows(f"import time\n\ntime.sleep({LOAD_S})\n\n\nasync def get():\n")
        )
        ours.wait(0, DEADLINE_S)
        yield from in_turn(slow_count, {f"uvicorn --reload, {LOAD_S} s at import": theirs}, 1000)
        yield from in_turn(count, {f"flashfw dev, a fixture of {LOAD_S} s": ours}, 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--edits", type=int, default=50)
    parser.add_argument("--slow-edits", type=int, default=10, help="of the peer that loads for 5 s at each")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    machine = servers.machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    print(f"{'':50} {'n':>5} {'p50 ms':>9} {'p95 ms':>9} {'least':>9}", flush=True)
    figures: list[Figure] = []
    for rows in (quick(given.edits), slow(given.edits, given.slow_edits) if given.slow_edits else ()):
        for row in rows:
            figures.append(row)
            seen = f"   both {row.both}, last {row.last}" if isinstance(row, Pairs) else ""
            print(f"{row.what:50} {row.count:5} {row.p50_ms:9} {row.p95_ms:9} {row.least_ms:9}{seen}", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"machine": machine, "figures": [asdict(row) for row in figures]}, indent=2))


if __name__ == "__main__":
    main()
