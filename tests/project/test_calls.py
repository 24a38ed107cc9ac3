"""What endpoint.toml says of calls, against what the handler takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import shop

FIXTURES = {"endpoints/a/fixtures.py": "def model(): ...\ndef mine(job: Job): ...\ndef deep(mine): ..."}
HERE = "endpoints/a/handler.py:1"


def told(folder: Path, handler: str, text: str) -> list[str]:
    files = {"endpoints/a/handler.py": handler, "endpoints/a/endpoint.toml": text, **FIXTURES}
    return [problem.partition("endpoints/a/endpoint.toml:")[2] for problem in shop.told(shop.write(folder, files))]


@pytest.mark.parametrize(
    "handler",
    [
        "def handler(items: list[str]): ...",
        "def handler(items: Sequence[str], model): ...",
        "def handler(items): ...",
        "def handler(items: Items, *, model=injected): ...",
        "@wrapped\ndef handler(a, b): ...",
        "handler = make()",
        "class handler:\n    def __init__(self, model): ...\n    def __call__(self, items: 'list[str]'): ...",
    ],
)
def test_a_batch_fits(tmp_path: Path, handler: str) -> None:
    assert told(tmp_path, handler, "batch = {max_size = 2}") == []


@pytest.mark.parametrize(
    ("handler", "taken"),
    [
        ("def handler(): ...", "none"),
        ("def handler(prompt: str, steps: int): ...", "'prompt' and 'steps'"),
        ("def handler(item: str): ...", "'item'"),
        ("def handler(item: dict[str, int]): ...", "'item'"),
        ("def handler(model): ...", "none"),
        ("def handler(items: list[str], **more): ...", "'items' and '**more'"),
    ],
)
def test_a_batch_needs_one_list(tmp_path: Path, handler: str, taken: str) -> None:
    assert told(tmp_path, handler, "\nbatch = {max_size = 2}") == [
        f"2: 'batch' needs one list parameter, and 'a' takes {taken} ({HERE}); "
        "write `items: list[T]`; each caller sends one T"
    ]


@pytest.mark.parametrize(
    ("handler", "what"),
    [
        (
            "def handler(items: list[str], me: flashfw.Job): ...",
            f"'batch' hands many jobs over at once, and 'a' takes one as 'me' ({HERE}); "
            "remove the parameter, or the key",
        ),
        (
            "def handler(items: list[str], deep): ...",
            "'batch' hands many jobs over at once, and 'a' takes 'mine', built for one (endpoints/a/fixtures.py:2); "
            "make a fixture without `Job`",
        ),
        (
            "async def handler(items: list[str]):\n    for item in items:\n        yield item",
            f"'batch' wants a list of results, and 'a' yields ({HERE}); return a list, one result for each item",
        ),
    ],
)
def test_a_batch_is_many_jobs(tmp_path: Path, handler: str, what: str) -> None:
    assert told(tmp_path, handler, "batch = {max_size = 2}") == [f"1: {what}"]


def test_what_a_function_inside_yields_is_its_own(tmp_path: Path) -> None:
    handler = "def handler(items: list[str]):\n    def each():\n        yield 1\n    return [*each()]"

    assert told(tmp_path, handler, "batch = {max_size = 2}") == []


@pytest.mark.parametrize(
    ("handler", "given"),
    [
        ("def handler(): ...", None),
        ("def handler(): ...", "{}"),
        ("def handler(): ...", "{__empty = true}"),
        ("def handler(n: int = 1, model=injected): ...", None),
        ("def handler(n: int, **more): ...", "{n = 1, x = 2}"),
        ("def handler(n: list[int]): ...", "{n = [1]}"),
        ("def handler(input): ...", "[1]"),
        ("def handler(input: int): ...", "1"),
        ("def handler(event): ...", "'x'"),
        ("def handler(order: Order): ...", "{id = 1}"),
        ("def handler(order: dict): ...", "{id = 1}"),
        ("handler = make()", "{id = 1}"),
    ],
)
def test_a_scheduled_input_fits(tmp_path: Path, handler: str, given: str | None) -> None:
    line = "" if given is None else f"input = {given}"

    assert told(tmp_path, handler, f"[[schedule]]\ncron = '0 6 * * *'\n{line}") == []


@pytest.mark.parametrize(
    ("handler", "given", "expected"),
    [
        ("def handler(prompt): ...", "", f"1: 'schedule[0].input' lacks 'prompt', which 'a' requires ({HERE})"),
        ("def handler(prompt): ...", "input = {promt = 1, prompt = 2}",
         f"3: unknown key 'schedule[0].input.promt': 'a' has no such parameter ({HERE}); did you mean 'prompt'?"),
        ("def handler(a, b=1): ...", "input = 'x'",
         f"3: 'schedule[0].input' must be a table of the parameters of 'a' ({HERE})"),
        ("def handler(n: int): ...", "input = 1", f"3: 'schedule[0].input' must be a table of the parameters of 'a' "
         f"({HERE})"),
        ("def handler(n, model): ...", "[schedule.input]\nn = 1\nmodel = 2",
         f"5: unknown key 'schedule[0].input.model': 'a' has no such parameter ({HERE})"),
        ("def handler(a): ...", "[[on.dev.schedule]]\ncron = '* * * * *'",
         f"3: 'on.dev.schedule[0].input' lacks 'a', which 'a' requires ({HERE})"),
    ],
)  # fmt: skip
def test_a_scheduled_input_that_every_tick_would_refuse(
    tmp_path: Path, handler: str, given: str, expected: str
) -> None:
    assert told(tmp_path, handler, f"[[schedule]]\ncron = '0 6 * * *'\n{given}") == [expected]
