"""Endpoints that are a server of somebody else's: `command = "..."` in an endpoint.toml, and no handler.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flashfw.errors import Problem
from flashfw.project import handlers, names, routes, tomlkeys
from flashfw.project.cascade import Settings
from flashfw.project.handlers import Reading
from flashfw.project.model import Definition, Directory, EndpointTree, Handler
from flashfw.project.tomlkeys import Document

COMMAND = "command"
READY = "ready"


def read(root: Path, directory: Directory) -> Reading | None:
    """What an endpoint.toml with a command is to collection; None where there is none.

    A command is its own file's alone: endpoints below do not inherit it.
    """
    if names.CONFIG not in directory.files:
        return None
    document = tomlkeys.load(root, routes.file(directory.path, names.CONFIG))
    if isinstance(document, Problem) or document.data.get(COMMAND, False) is False:
        return None  # whoever checks the file tells what is wrong with it
    if names.HANDLER in directory.files:
        what = f"'{COMMAND}' runs a server, but {routes.file(directory.path)} is there too: an endpoint is one of both"
        also = ((routes.file(directory.path), None),)
        return Reading(directory.path, None, (_problem(document, what, "remove one of them", also=also),))
    if not directory.path:
        what = f"'{COMMAND}' belongs to one endpoint, and {document.file} holds for all"
        return Reading(directory.path, None, (_problem(document, what, f"move it to {names.ENDPOINTS}/NAME/"),))
    line = document.position((COMMAND,)).line
    definition = Definition(COMMAND, line, "assignment")
    handler = Handler(directory.path, document.file, "", "app", (definition,), routes.route(directory.path))
    return Reading(directory.path, handler, tuple(handlers.place_flaws(handler)))


def is_server(tree: EndpointTree) -> bool:
    """Whether an endpoint is a server that a command starts."""
    return any(not handler.module for handler in tree.handlers)


def served(tree: EndpointTree, settings: Settings) -> dict[str, Any]:
    """The fields of the manifest for such an endpoint; nothing for any other."""
    if not is_server(tree) or COMMAND not in settings:
        return {}
    ready = {READY: settings[READY].value} if READY in settings else {}
    return {COMMAND: settings[COMMAND].value, **ready}


def problems(tree: EndpointTree, settings: Settings) -> Sequence[Problem]:
    """What is wrong with `command` and `ready` as they hold in one environment."""
    own = routes.file(tree.directory.partition("/")[2], names.CONFIG)
    if is_server(tree) and COMMAND not in settings:
        line = tree.handlers[0].definitions[0].line
        hint = f"an environment needs a command where the endpoint has one: [on.ENV] {COMMAND} = ..."
        return (Problem(f"'{COMMAND}' is unset, and there is no {names.HANDLER}", own, line, hint=hint),)
    if not is_server(tree) and READY in settings and settings[READY].origin.file == own:
        what = f"'{READY}' has no effect without '{COMMAND}'"
        return (settings[READY].problem((), what, level="warning"),)
    return ()


def _problem(document: Document, what: str, hint: str, also: tuple[tuple[str, int | None], ...] = ()) -> Problem:
    return Problem(what, document.file, document.position((COMMAND,)).line, hint=hint, also=also)
