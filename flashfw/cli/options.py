"""The options and arguments that several verbs share, so that they have one name and one help text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
root = click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The project's folder; else the nearest flashfw.toml.",
)


def environment(text: str) -> Callable[[Decorated], Decorated]:
    """`--env`, with what it means to the verb; `dev` unless given."""
    return click.option("--env", "environment", metavar="NAME", default="dev", help=text)


def selection(command: Decorated) -> Decorated:
    """`IDS`, `-k` and `-m`, as `ids`, `keyword` and `marks`."""
    parameters = (
        click.argument("ids", nargs=-1, metavar="[IDS]..."),
        click.option("-k", "keyword", metavar="EXPR", default="", help="Ids that hold these words: and, or, not, ()."),
        click.option("-m", "marks", metavar="EXPR", default="", help="Functions with these marks: and, or, not, ()."),
    )
    for parameter in reversed(parameters):
        command = parameter(command)
    return command
