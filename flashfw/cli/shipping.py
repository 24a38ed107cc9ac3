"""What the verbs that change an environment share: where they go, what they ask, how they tell of a rollout."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from flashfw.cli import output, server
from flashfw.cluster.explaining.moments import duration
from flashfw.errors import Exit, ProjectError, UsageError
from flashfw.manifest import Manifest
from flashfw.project import root as roots
from flashfw.project.model import Root
from flashfw.project.settings import Environment, ProjectSettings, load_settings
from flashfw.project.validate import DEV
from flashfw.ship.cluster import Cluster
from flashfw.ship.plan import Plan
from flashfw.ship.rollouts import follow
from flashfw.ship.target import Event, Rollout, Shipped, Target

FUNCTIONS_SHOWN = 20

yes = click.option("--yes", "-y", is_flag=True, help="Answer every question with yes.")


@dataclass(frozen=True, slots=True)
class Place:
    """An environment of a project: what its files say of it."""

    root: Root
    settings: ProjectSettings
    environment: Environment

    @property
    def name(self) -> str:
        return self.environment.name

    def target(self) -> Cluster:
        """The server that serves it, with the key that is kept for it."""
        found = server.locate(url=None, environment=self.name, root=self.root.path)
        return Cluster(self.name, found.url, found.key, cafile=found.cafile)


def place(environment: str, root: Path | None) -> Place:
    """The environment of that name.

    Raises:
        NoProjectError, ProjectError: there is no project, or its settings cannot be read.
        UsageError: it is `dev`, or not declared.
    """
    found = roots.find(Path.cwd(), explicit=root)
    settings, problems = load_settings(found)
    if any(problem.level == "error" for problem in problems):
        raise ProjectError(problems)
    if environment == DEV:
        hint = "`flashfw dev` serves it; `flashfw ship local` ships to a server on this machine"
        raise UsageError("'dev' is the laptop's own environment, and nothing is shipped to it", hint=hint)
    declared = settings.environment(environment)
    if declared is None:
        raise server.undeclared(environment, found, settings)
    return Place(found, settings, declared)


def agree(question: str, reasons: list[str], *, is_yes: bool, add: str) -> None:
    """Ask whether to go on for these reasons; nothing is asked where there are none, or where the answer was given.

    Raises:
        UsageError: there is nobody to ask; it says what to `add` to the command.
        click.Abort: the answer is no.
    """
    if not reasons or is_yes:
        return
    if not can_ask():
        raise UsageError(f"{', and '.join(reasons)}: that needs a yes", hint=f"add {add}; nothing was changed")
    for reason in reasons:
        output.note(f"{output.paint('!', 'yellow', sys.stderr)} {output.printable(reason)}")
    if not click.confirm(question, err=True):
        output.note("nothing was changed")
        raise click.Abort


def can_ask() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def watched(target: Target, number: int, *, environment: str) -> Rollout:
    """The rollout once it ended, its events on stderr as they come.

    Raises:
        KeyboardInterrupt: told that the server goes on.
    """
    try:
        return follow(target, number, told)
    except KeyboardInterrupt:
        output.note(f"\nrollout {number} goes on at the server, without this command")
        output.note(f"  look at it:  flashfw status {environment}\n  undo it:     flashfw rollback {environment}")
        raise


def told(event: Event) -> None:
    """One line for one event of a rollout."""
    text = event.text.removeprefix(f"{event.endpoint}: ")
    tag = output.paint(output.printable(f"{event.endpoint}: "), "cyan", sys.stderr) if event.endpoint else ""
    output.note(f"  {tag}{output.printable(text)}")


def ended(rollout: Rollout, *, as_json: bool, said: dict[str, Any]) -> int:
    """Tell how a rollout ended; the exit code."""
    document = {**said, "rollout": rollout.number, "state": rollout.state, "failure": None}
    if rollout.state == "done":
        if as_json:
            output.document(document)
        return Exit.DONE
    failure = rollout.failure
    if failure:
        document["failure"] = {
            "endpoint": failure.endpoint,
            "message": failure.message,
            "traceback": failure.traceback,
            "output": list(failure.output),
        }
        if failure.traceback:
            output.note(output.printable(failure.traceback.rstrip()))
        if failure.output:
            output.note(f"the last lines of {failure.endpoint}'s worker:")
            for line in failure.output:
                output.note(f"    {output.printable(line.rstrip())}")
    _say_failed(rollout)
    if as_json:
        output.document(document)
    return Exit.FAILED


def _say_failed(rollout: Rollout) -> None:
    failure = rollout.failure
    at = f" at {failure.endpoint}" if failure and failure.endpoint else ""
    where = f"{at}: {failure.message}" if failure else ""
    output.note(f"{output.paint('failed', 'red', sys.stderr)}  release {rollout.release}{output.printable(where)}")
    serving = f"release {rollout.before} serves on" if rollout.before else "there was no release before it"
    output.note(f"  traffic never moved: {serving}")


def urls(manifest: Manifest, url: str) -> list[str]:
    """Each function with how it is called."""
    functions = [function for endpoint in manifest.endpoints for function in endpoint.functions]
    verbs = {"job": "POST", "app": "ANY"}
    cells = [
        ["", output.printable(one.id), verbs.get(one.kind, one.method), f"{url.rstrip('/')}{one.route}"]
        for one in functions[:FUNCTIONS_SHOWN]
    ]
    more = len(functions) - FUNCTIONS_SHOWN
    return [*(f"  {line.strip()}" for line in output.columns(cells))] + ([f"  and {more} more"] if more > 0 else [])


def age(shipped: Shipped | None) -> str:
    """Whose and how old a release is.

    >>> age(None)
    'nothing is served there yet'
    """
    if shipped is None:
        return "nothing is served there yet"
    when = f", {duration(max(0.0, time.time() - shipped.created))} ago" if shipped.created else ""
    return f"now {shipped.id}" + (f" by {output.printable(shipped.by)}" if shipped.by else "") + when


def reasons(plan: Plan, environment: Environment, *, is_removal_agreed: bool) -> list[str]:
    """What of a plan needs a yes."""
    found = []
    if plan.removes and not is_removal_agreed:
        jobs = f", and {output.plural(plan.jobs, 'job')} that wait there end" if plan.jobs else ""
        found.append(f"{', '.join(plan.removes)} will be deleted{jobs}")
    elif plan.jobs and not is_removal_agreed:
        found.append(f"{output.plural(plan.jobs, 'job')} of functions that are removed will end")
    if environment.protected:
        found.append(f"'{environment.name}' is protected")
    return found
