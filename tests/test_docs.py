"""What the pages show is true: the files in them make a project without problems, and their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from flashfw.cli.main import VERBS
from flashfw.project import template
from tests.dev_process import COMMAND

REPOSITORY = Path(__file__).parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
SHOWN = re.compile(r"^```(?:python|toml)\n# (\S+\.(?:py|toml))\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
VERB = re.compile(r"^(?:    |\$ |\| `)flashfw ([a-z]+)", re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_the_files_of_a_page_have_no_problems(page: str, tmp_path: Path) -> None:
    shop = _project_of(REPOSITORY / page, tmp_path)

    checked = subprocess.run([COMMAND, "check"], cwd=shop, capture_output=True, text=True)

    assert checked.returncode == 0, checked.stderr


def test_the_test_in_getting_started_passes(tmp_path: Path) -> None:
    shop = _project_of(REPOSITORY / "docs" / "getting-started.md", tmp_path)

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_slow.py"]
    ran = subprocess.run(command, cwd=shop, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in LINK.findall(page.read_text("utf-8")) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_verb_shown_is_a_verb(page: Path) -> None:
    assert set(VERB.findall(page.read_text("utf-8"))) <= VERBS.keys()


def _project_of(page: Path, folder: Path) -> Path:
    """A new project with the files that the page shows: code whose first line is a comment with a path."""
    shop = template.create(folder / "shop").path
    shown = SHOWN.findall(page.read_text("utf-8"))
    assert len(shown) >= 3
    for path, text in shown:
        (shop / path).parent.mkdir(parents=True, exist_ok=True)
        (shop / path).write_text(text, encoding="utf-8")
    return shop
