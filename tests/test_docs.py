"""What the pages show is true: their files make a project without problems, their commands answer as they say.

A block that begins with a comment with a path is a file of the project that the page is about. In a block marked
`console served` each line after `$ ` is run, in one shell per page, against that project under `flashfw dev`; what
follows it is what it must print. A block marked `python served` must run. Lines of a block marked `text dev` must be
printed by `flashfw dev`, in that order. `...` stands for anything.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flashfw.cli.main import VERBS
from flashfw.project import template
from tests.command import COMMAND, flashfw
from tests.dev_process import DevServer, wait_until

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
TEXTS = {page: page.read_text("utf-8") for page in PAGES}

FENCE = re.compile(r"^```(\w+)((?: \w+)*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"# (\S+\.(?:py|toml))\n")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
VERB = re.compile(r"^(?:    |\$ |\| `)flashfw ([a-z]+)", re.MULTILINE)
ADDRESS = "http://127.0.0.1:8888"
LONGEST_S = 20
MARK = "-- what the next command prints --"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, the words that mark it, its text."""

    language: str
    marks: str
    text: str


def _blocks(page: Path) -> list[Block]:
    return [Block(language, marks.strip(), text) for language, marks, text in FENCE.findall(TEXTS[page])]


def _files(page: Path) -> dict[str, str]:
    blocks = [block for block in _blocks(page) if block.language in ("python", "toml")]
    return {found[1]: block.text[found.end() :] for block in blocks if (found := PATH.match(block.text))}


WITH_FILES = [page for page in PAGES if _files(page)]
SERVED = [page for page in PAGES if any(block.marks == "served" for block in _blocks(page))]
BESIDE = {
    "docs/configuration.md": {
        "endpoints/gpu_a100/handler.py": "def handler(): ...",
        "endpoints/gpu_a100/upscale/handler.py": "def handler(): ...",
    }
}
"""What a page speaks of and does not show."""


@pytest.mark.parametrize("page", WITH_FILES, ids=lambda page: page.name)
def test_the_files_of_a_page_have_no_problems(page: Path, tmp_path: Path) -> None:
    shop = _project_of(page, tmp_path)

    checked = flashfw("check", cwd=shop)

    assert checked.returncode == 0, checked.stderr


def test_the_test_in_getting_started_passes(tmp_path: Path) -> None:
    shop = _project_of(DOCS / "getting-started.md", tmp_path)

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_slow.py"]
    ran = subprocess.run(command, cwd=shop, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("page", SERVED, ids=lambda page: page.name)
def test_commands_answer_as_shown(page: Path, tmp_path: Path, flashfw_dev: Callable[..., DevServer]) -> None:
    server = flashfw_dev(_project_of(page, tmp_path))
    consoles = [block.text for block in _blocks(page) if (block.language, block.marks) == ("console", "served")]
    steps = [step for text in consoles for step in _steps(text)]

    printed = _run([command for command, _ in steps], server, tmp_path)

    assert len(printed) == len(steps), printed
    for (command, shown), text in zip(steps, printed, strict=True):
        assert _is_as_shown(text, shown), f"{command}\n\nshown:\n{shown}\n\nprinted:\n{text}"
    for block in _blocks(page):
        if (block.language, block.marks) == ("python", "served"):
            program = block.text.replace(ADDRESS, server.url)
            subprocess.run([sys.executable, "-c", program], cwd=server.project, check=True)
        elif (block.language, block.marks) == ("text", "dev"):
            wait_until(lambda text=block.text: _are_in_order(text, server.output()), f"{page.name} shows\n{block.text}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_of_a_page_parses(page: Path) -> None:
    parsers: dict[str, Callable[[str], object]] = {"python": ast.parse, "toml": tomllib.loads, "json": json.loads}
    for block in _blocks(page):
        parsers.get(block.language, str)(block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in LINK.findall(TEXTS[page]) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_verb_shown_is_a_verb(page: Path) -> None:
    assert set(VERB.findall(TEXTS[page])) <= VERBS.keys()


def test_the_index_links_every_page() -> None:
    linked = {(DOCS / link).resolve() for link in LINK.findall(TEXTS[DOCS / "index.md"])}

    assert {page for page in PAGES if page.parent == DOCS and page.name != "index.md"} - linked == set()


def _project_of(page: Path, folder: Path) -> Path:
    """A new project with the files that the page shows, without endpoints of the template that it does not name."""
    shop = template.create(folder / "shop").path
    for name in ("api", "gpu_fractal"):
        if not re.search(rf"\b{name}\b", TEXTS[page]):
            shutil.rmtree(shop / "endpoints" / name)
    named = page.relative_to(REPOSITORY).as_posix()
    for path, text in {**_files(page), **BESIDE.get(named, {})}.items():
        (shop / path).parent.mkdir(parents=True, exist_ok=True)
        (shop / path).write_text(text, encoding="utf-8")
    return shop


def _steps(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block with what it prints; a line after `> ` belongs to the command above."""
    for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        first, *rest = step.rstrip("\n").split("\n")
        more = [line[2:] for line in rest if line.startswith("> ")]
        yield "\n".join([first, *more]), "\n".join(line for line in rest if not line.startswith("> "))


def _run(commands: list[str], server: DevServer, home: Path) -> list[str]:
    """What each command prints, in one shell in the project's folder."""
    (home / ".curlrc").write_text(f"silent\nshow-error\nno-buffer\nmax-time = {LONGEST_S}\n")
    lines = [f"export PATH='{COMMAND.parent}':$PATH CURL_HOME='{home}'", "unset http_proxy https_proxy all_proxy"]
    for command in commands:
        lines += [f"echo '{MARK}'", command.replace(ADDRESS, server.url), "echo"]
    ran = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=server.project,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    return [text.replace("\r", "").strip() for text in ran.stdout.split(f"{MARK}\n")[1:]]


def _is_as_shown(printed: str, shown: str) -> bool:
    pattern = re.escape(shown.strip()).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


def _are_in_order(shown: str, printed: str) -> bool:
    lines = (re.escape(line.rstrip()).replace(re.escape("..."), "[^\n]*") for line in shown.strip("\n").split("\n"))
    return re.search("^" + r"$.*?^".join(lines) + "$", printed, re.DOTALL | re.MULTILINE) is not None
