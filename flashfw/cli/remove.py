"""`flashfw remove`: take everything off an environment's server."""

from __future__ import annotations

from pathlib import Path

import click

from flashfw.cli import options, output, server, shipping
from flashfw.errors import UsageError
from flashfw.project.settings import LOCAL
from flashfw.ship import local
from flashfw.ship.rollouts import author
from flashfw.ship.target import Situation


@click.command()
@click.argument("environment", metavar="ENV")
@shipping.yes
@click.option("--confirm", metavar="ENV", help="The environment's name once more, for scripts; with --yes.")
@options.root
@options.json
def command(environment: str, *, yes: bool, confirm: str | None, root: Path | None, as_json: bool) -> None:
    """Take everything off an environment's server.

    Ends all its endpoints and jobs, and forgets its releases and secrets. Asks twice. The server itself stays, but for
    `local`, which is stopped, too.
    """
    place = shipping.place(environment, root)
    data = server.local_folder(place.settings.name)
    if environment == LOCAL and local.running(data) is None:
        output.note("nothing to do: no local server runs")
        if as_json:
            output.document({"environment": environment, "url": None, "removed": False, "stopped": False})
        return
    with place.target() as target:
        situation = target.situation()
        _agree(place, target.url, situation, is_yes=yes, confirm=confirm)
        if situation.host.project is not None:
            target.remove(f"{place.settings.name}/{environment}", by=author())
    stopped = environment == LOCAL and local.stop(data)
    if as_json:
        output.document({"environment": environment, "url": target.url, "removed": True, "stopped": stopped})
    else:
        output.line(f"removed  {environment} at {target.url} serves nothing" + (", and is stopped" if stopped else ""))
        if stopped:
            output.note(f"  volumes and logs stay in {data}")


def _agree(place: shipping.Place, url: str, situation: Situation, *, is_yes: bool, confirm: str | None) -> None:
    host, name = situation.host, place.name
    if host.project not in (None, place.settings.name) or host.environment not in (None, name):
        raise UsageError(f"{url} is {host.project}/{host.environment}, not {place.settings.name}/{name}")
    endpoints = len(situation.release.manifest.endpoints) if situation.release else 0
    jobs = sum(situation.jobs.values())
    what = f"{output.plural(endpoints, 'endpoint')} and {output.plural(jobs, 'job')} that wait or run will be gone"
    if confirm is not None and confirm != name:
        raise UsageError(f"--confirm {confirm!r} is not {name!r}", hint="nothing was changed")
    add = f"--yes --confirm {name}"
    if is_yes and confirm is None and not shipping.can_ask():
        raise UsageError(f"{what}: that needs its name, too", hint=f"add --confirm {name}; nothing was changed")
    shipping.agree(f"Remove {name} at {url}?", [what], is_yes=is_yes, add=add)
    if confirm is None and click.prompt(f"Type {name} to confirm", err=True) != name:
        raise UsageError("that is not its name", hint="nothing was changed")
