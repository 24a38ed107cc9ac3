"""`flashfw rollback`: serve a former release again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from flashfw.cli import options, output, plans, shipping
from flashfw.errors import Exit, TargetError, UsageError
from flashfw.ship.plan import Plan, compare
from flashfw.ship.rollouts import author
from flashfw.ship.target import Shipped, Situation


@click.command()
@click.argument("environment", metavar="ENV")
@click.argument("release", required=False)
@shipping.yes
@options.root
@options.json
def command(environment: str, *, release: str | None, yes: bool, root: Path | None, as_json: bool) -> int:
    """Serve a former release again.

    RELEASE is its id or the beginning of it; without one, the release that was current before, so that twice goes there
    and back. New workers are ready before calls go to them, as with `ship`.
    """
    begun = time.monotonic()
    place = shipping.place(environment, root)
    with place.target() as target:
        situation = target.situation()
        to = chosen(target.releases(), situation, release)
        if situation.current is None or to.id == situation.current.id:
            output.note(f"nothing to do: {to.id} is current")
            if as_json:
                output.document({**_document(environment, target.url, to.id, None), "state": "unchanged"})
            return Exit.DONE
        plan = _plan(target.release(to.id), situation, to.id)
        output.note(f"{environment}  {target.url}  {shipping.age(situation.current)} -> {to.id}")
        for line in plans.lines(plan.rows):
            output.note(line)
        why = shipping.reasons(plan, place.environment, is_removal_agreed=False)
        shipping.agree("Roll back?", why, is_yes=yes, add="--yes")
        number = target.rollback(to=to.id, expected=situation.current.id, by=author())
        rollout = shipping.watched(target, number, environment=environment)
        said = _document(environment, target.url, to.id, plan)
        code = shipping.ended(rollout, as_json=as_json, said=said)
    if code == Exit.DONE and not as_json:
        took = f"{time.monotonic() - begun:.1f} s"
        output.line(f"{output.paint('rolled back', 'green')}  {environment} serves {to.id} again  {took}")
    return code


def chosen(releases: Sequence[Shipped], situation: Situation, asked: str | None) -> Shipped:
    """The release that is meant, of those that a server keeps, last served first: by the beginning of its id, else the
    one that was current before.

    Raises:
        UsageError: none or several are meant.
        TargetError: there is none to go back to.
    """
    current = situation.current.id if situation.current else None
    known = ", ".join(one.id for one in releases) or "none"
    if asked is not None:
        found = [one for one in releases if one.id.startswith(asked)]
        if len(found) != 1:
            what = "several releases begin with" if found else "there is no release"
            raise UsageError(f"{what} {asked!r}", hint=f"there is: {known}")
        return found[0]
    others = [one for one in releases if one.id != current]
    before = [one for one in others if one.state not in ("failed", "staged")]
    if not before:
        alone = (
            "the server keeps the current one alone" if current else "nothing was shipped there yet, or all was removed"
        )
        hint = f"name one; the server keeps: {known}" if others else alone
        raise TargetError("there is no release to go back to", hint=hint)
    return before[0]


def _plan(release: Any, situation: Situation, release_id: str) -> Plan:
    rows = compare(situation.release, release, jobs=situation.jobs)
    return Plan(rows=rows, old=situation.current.id if situation.current else None, new=release_id)


def _document(environment: str, url: str, release: str, plan: Plan | None) -> dict[str, Any]:
    return {
        "environment": environment,
        "url": url,
        "release": release,
        "state": None,
        "plan": plans.document(plan) if plan else None,
        "rollout": None,
        "failure": None,
    }
