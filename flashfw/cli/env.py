"""`flashfw env list / show`: the environments of a project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flashfw.cli import options, output, server, shipping
from flashfw.errors import ProjectError, TargetError
from flashfw.project import root as roots
from flashfw.project.settings import LOCAL, Environment, load_settings


@click.group()
def command() -> None:
    """List and show environments."""


@command.command("list")
@options.root
@options.json
def list_environments(*, root: Path | None, as_json: bool) -> None:
    """List what can be shipped to, and whether a key is kept for it. Asks no server."""
    place = roots.find(Path.cwd(), explicit=root)
    settings, problems = load_settings(place)
    if any(problem.level == "error" for problem in problems):
        raise ProjectError(problems)
    found = [_declared(environment, place.path) for environment in settings.shippable]
    if as_json:
        output.document({"environments": found})
        return
    cells = [
        [one["name"], one["target"], _url(one), "protected" if one["protected"] else "", _key(one)] for one in found
    ]
    for line in output.columns(cells):
        output.line(line)


@command.command("show")
@click.argument("environment", metavar="ENV")
@options.root
@options.json
def show(environment: str, *, root: Path | None, as_json: bool) -> None:
    """Show one environment, and what its server says."""
    place = shipping.place(environment, root)
    document = {**_declared(place.environment, place.root.path), **_asked(place)}
    if as_json:
        output.document(document)
        return
    for name, value in document.items():
        if name == "releases":
            for one in value or ():
                output.line(f"release    {one['id']}  {one['state']}  {output.printable(one['by'])}")
        elif value not in (None, [], False, ""):
            output.line(f"{name:<10} {output.printable('yes' if value is True else str(value))}")


def _declared(environment: Environment, root: Path) -> dict[str, Any]:
    try:
        found = server.locate(url=None, environment=environment.name, root=root) if environment.url else None
    except TargetError:  # no local server runs
        found = None
    url = found.url if found else None if environment.name == LOCAL else environment.url
    key = found.key if found else None
    return {
        "name": environment.name,
        "target": environment.target,
        "url": url,
        "protected": environment.protected,
        "key": key is not None,
    }


_SILENT: dict[str, Any] = dict.fromkeys(("server", "python", "current", "releases", "error", "hint"))
"""What is known of a server that was not asked, or did not answer."""


def _asked(place: shipping.Place) -> dict[str, Any]:
    """What the server says, or why it says nothing: to show an environment is no failure where its server is down."""
    if not place.environment.url:
        return _SILENT
    try:
        with place.target() as target:
            situation, releases = target.situation(), target.releases()
    except TargetError as error:
        return {**_SILENT, "error": error.what, "hint": error.hint or None}
    host = situation.host
    bound = f"{host.project}/{host.environment}" if host.project else "no release yet"
    return {
        "server": f"flashfw {host.flashfw}, {bound}",
        "python": ", ".join(host.pythons) or None,
        "current": situation.current.id if situation.current else None,
        "releases": [{"id": one.id, "created": one.created, "by": one.by, "state": one.state} for one in releases],
        "error": None,
        "hint": None,
    }


def _url(found: dict[str, Any]) -> str:
    return found["url"] or ("not running" if found["name"] == LOCAL else "no url")


def _key(found: dict[str, Any]) -> str:
    return "key kept" if found["key"] else "no key"
