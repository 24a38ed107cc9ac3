"""`flashfw new`: a project from the template."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from flashfw.cli import output
from flashfw.cli.output import Json
from flashfw.project import template


def command(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="A folder that is empty or does not exist yet; its name is the project's."),
    ],
    json: Json = False,
) -> None:
    """Write the project and say what to do next."""
    created = template.create(path)
    if json:
        output.document({"project": created.name, "path": str(created.path), "files": list(created.files)})
        return
    output.line(f"{created.name}: {output.plural(len(created.files), 'file')} in {output.printable(str(path))}")
    output.line("next:")
    for step in _next_steps(path):
        output.line(f"  {step}")


def _next_steps(path: Path) -> list[str]:
    enter = [] if path.absolute() == Path.cwd() else [f"cd {shlex.quote(str(path))}"]
    return [
        *enter,
        "flashfw dev",
        """flashfw call hello '{"text": "the cat and the hat"}'     # in a second terminal""",
    ]
