"""`flashfw new`: a project from the template."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from flashfw.cli import options, output
from flashfw.project import template


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@options.json
def command(path: Path, as_json: bool) -> None:
    """Make a project from the template, ready to run.

    PATH is a folder that is empty or does not exist yet; its name is the project's.
    """
    created = template.create(path)
    if as_json:
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
