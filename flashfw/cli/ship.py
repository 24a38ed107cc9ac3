"""`flashfw ship`: build, say what would change, and make it so."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import platformdirs

import flashfw
from flashfw.build.build import Built, build
from flashfw.build.lock import FILE
from flashfw.bundle.release import API, Layer
from flashfw.cli import options, output, plans, server, shipping
from flashfw.cli.lines import header
from flashfw.cli.uploads import Uploads
from flashfw.cluster.explaining.moments import duration
from flashfw.errors import Exit, ProjectError, TargetError
from flashfw.project.settings import LOCAL
from flashfw.ship import local
from flashfw.ship.cluster import Cluster
from flashfw.ship.left_behind import left_behind
from flashfw.ship.plan import Plan, compare, mismatch, plan
from flashfw.ship.rollouts import author, begin
from flashfw.ship.target import BusyError, ConflictError, Host, RefusedError, Rollout, Situation


@click.command()
@click.argument("environment", metavar="ENV")
@click.option("--plan", "is_plan", is_flag=True, help="Show what would change there, and change nothing there.")
@shipping.yes
@click.option("--removes-ok", is_flag=True, help="Agree to the deletion of endpoints, and to nothing else.")
@click.option("--wait", "is_waiting", is_flag=True, help="Wait for a rollout of somebody else.")
@options.root
@options.json
def command(
    environment: str,
    *,
    is_plan: bool,
    yes: bool,
    removes_ok: bool,
    is_waiting: bool,
    root: Path | None,
    as_json: bool,
) -> int:
    """Build, say what would change, and make it so.

    New workers are ready before calls go to them; if they do not become ready, everything stays as it was. ENV is an
    environment of flashfw.toml, or `local` for a server on this machine, which is started if none runs.
    """
    begun = time.monotonic()
    place = shipping.place(environment, root)
    output.note(header(flashfw.__version__, str(place.root.path), place.root.config.name))
    asked = Asked(is_plan, yes, removes_ok, is_waiting, as_json, begun)
    is_there = environment != LOCAL or local.running(server.local_folder(place.settings.name)) is not None
    if is_there:
        _greet(place)  # a server that cannot be shipped to is told before the time that a build takes
    built = _built(place)
    if not is_there and is_plan:
        with Cluster(environment, place.environment.url or "") as nobody:
            return Ship(place, nobody, built, asked, is_there=False).run()
    if not is_there:
        _start_local(place)
        _greet(place)
    with place.target() as target:
        return Ship(place, target, built, asked, is_there=True).run()


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command line, and when it began."""

    is_plan: bool
    yes: bool
    removes_ok: bool
    is_waiting: bool
    as_json: bool
    begun: float


class Ship:
    """One run of the verb over what was built."""

    def __init__(self, place: shipping.Place, target: Cluster, built: Built, asked: Asked, *, is_there: bool) -> None:
        self.place = place
        self.target = target
        self.built = built
        self.asked = asked
        self.is_there = is_there

    def run(self) -> int:
        """The exit code."""
        while True:
            situation = self.target.situation() if self.is_there else _nothing()
            if situation.rollout is not None and not self.asked.is_plan:
                if situation.rollout.release == self.built.release.id:
                    return self._joined(situation.rollout)
                self._turn(situation.rollout)
                continue
            for problem in mismatch(situation.host, self.place.settings.name, self.place.name):
                raise TargetError(problem.what, hint=problem.hint)
            made = plan(self.built.release, situation)
            self._show(made, situation)
            if made.problems:
                raise ProjectError(made.problems)
            if self.asked.is_plan or made.is_done:
                return self._unchanged(made)
            self._agree(made)
            try:
                return self._carried_out(made, situation)
            except ConflictError as conflict:
                if conflict.current != made.new:
                    raise
            except BusyError as busy:
                if busy.release == made.new:  # somebody ships the same just now: that is followed, or done by now
                    continue
                if not self.asked.is_waiting or busy.rollout is None:
                    raise _busy(busy) from None
                self._wait_for(busy.rollout)

    def _show(self, made: Plan, situation: Situation) -> None:
        where = f"{output.paint(self.place.name, 'bold', sys.stderr)}  {self.target.url}"
        now = shipping.age(situation.current) if self.is_there else "no server runs there yet; a ship starts one"
        output.note(f"{where}  release {made.new}  ({now})")
        for line in plans.lines(made.rows):
            output.note(line)
        if made.is_empty and not made.is_done:
            output.note("  no endpoint changes; workers that start from now on have the files of this release")
        output.note(f"  {plans.tally(made.rows)}")

    def _unchanged(self, made: Plan) -> int:
        if made.is_done and not self.asked.is_plan and self._uploaded(self.built.release.layers):
            output.note("  the server had lost what was sent; it has it again")
        if self.asked.as_json:
            output.document(self._document(made, state="planned" if self.asked.is_plan else "unchanged"))
        elif made.is_done:
            output.line(f"nothing to do: {self.place.name} serves release {made.new}")
        return Exit.DONE

    def _agree(self, made: Plan) -> None:
        reasons = shipping.reasons(made, self.place.environment, is_removal_agreed=self.asked.removes_ok)
        add = "--yes" if self.place.environment.protected else "--yes, or --removes-ok"
        shipping.agree("Ship?", reasons, is_yes=self.asked.yes, add=add)

    def _carried_out(self, made: Plan, situation: Situation) -> int:
        release = self.built.release
        sent = self._uploaded(release.layers)
        try:
            number = begin(self.target, release, made, by=author())
        except ConflictError as conflict:
            if conflict.current != made.new:
                self._tell_what_changed(conflict, situation)
            raise
        uploaded = [{"digest": one.digest, "bytes": one.size_bytes} for one in sent]
        if number is None:  # its answer was lost, and it is done by now
            if self.asked.as_json:
                output.document(self._document(made, state="done", uploaded=uploaded))
            return self._done(made.new)
        rollout = shipping.watched(self.target, number, environment=self.place.name)
        return self._ended(rollout, self._document(made, uploaded=uploaded))

    def _uploaded(self, layers: Iterable[Layer]) -> tuple[Layer, ...]:
        with Uploads(self.built.release) as uploads:
            try:
                sent = self.target.upload(layers, self.built.archives, uploads.progress)
            except KeyboardInterrupt:
                output.note("\nnothing was changed; the next ship sends what is still missing")
                raise
        return sent

    def _ended(self, rollout: Rollout, document: dict[str, Any]) -> int:
        code = shipping.ended(rollout, as_json=self.asked.as_json, said=document)
        left_out = {found.path: found.why for found in self.built.source.left_out}
        source = self.built.release.source.digest
        if rollout.failure and (told := left_behind(rollout.failure, source=source, left_out=left_out)):
            output.note(f"  {output.printable(told[0])}; {output.printable(told[1])}")
        return self._done(rollout.release) if code == Exit.DONE else code

    def _done(self, release: str) -> int:
        if not self.asked.as_json:
            for line in shipping.urls(self.built.release.manifest, self.target.url):
                output.line(line)
            took = duration(time.monotonic() - self.asked.begun)
            shipped = output.paint("shipped", "green")
            output.line(f"{shipped}  {self.place.name} serves release {release} at {self.target.url}  {took}")
        return Exit.DONE

    def _joined(self, running: Rollout) -> int:
        """Follow a rollout of this very release, which a ship began that did not live to see its end."""
        output.note(f"rollout {running.number} of this release goes on already, by {output.printable(running.by)}")
        rollout = shipping.watched(self.target, running.number, environment=self.place.name)
        return self._ended(rollout, self._document(None))

    def _turn(self, running: Rollout) -> None:
        """Wait until a rollout of somebody else has ended, if that is wanted."""
        if not self.asked.is_waiting:
            busy = BusyError("", rollout=running.number, release=running.release, by=running.by, since=running.started)
            if not shipping.can_ask():
                raise _busy(busy)
            output.note(_busy(busy).what)
            if not click.confirm("Wait for it?", err=True, default=True):
                output.note("nothing was changed")
                raise click.Abort
        self._wait_for(running.number)

    def _wait_for(self, number: int) -> None:
        output.note(f"waiting for rollout {number} of somebody else")
        shipping.watched(self.target, number, environment=self.place.name)

    def _tell_what_changed(self, conflict: ConflictError, situation: Situation) -> None:
        output.note(f"{self.place.name} changed since this plan was made:")
        if conflict.current is None:
            output.note("  everything was removed")
            return
        by = f" by {output.printable(conflict.by)}" if conflict.by else ""
        output.note(f"  release {conflict.current}{by}")
        for line in plans.lines(compare(situation.release, self.target.release(conflict.current))):
            output.note(f"  {line}")

    def _document(
        self, made: Plan | None, *, state: str | None = None, uploaded: Sequence[dict[str, Any]] = ()
    ) -> dict[str, Any]:
        """What `--json` says: the same keys however it ends; no plan where a rollout of before was followed."""
        endpoints = self.built.release.manifest.endpoints
        return {
            "environment": self.place.name,
            "url": self.target.url,
            "release": self.built.release.id,
            "state": state,
            "plan": plans.document(made) if made else None,
            "uploaded": list(uploaded),
            "rollout": None,
            "failure": None,
            "urls": [f"{self.target.url}{function.route}" for found in endpoints for function in found.functions],
            "seconds": round(time.monotonic() - self.asked.begun, 3),
        }


def _busy(busy: BusyError) -> BusyError:
    """The error in words of our own: who ships what, and since when."""
    since = f", for {duration(max(0.0, time.time() - busy.since))}" if busy.since else ""
    what = f"{busy.by or 'somebody'} ships release {busy.release or '?'} just now (rollout {busy.rollout}{since})"
    return BusyError(what, rollout=busy.rollout, release=busy.release, by=busy.by, since=busy.since)


def _built(place: shipping.Place) -> Built:
    """What there is to ship; problems are told before anything is asked of a server."""
    built = build(
        place.root,
        environment=place.name,
        variables=dict(os.environ),
        cache=Path(platformdirs.user_cache_dir("flashfw")),
        on_progress=lambda text: output.note(output.paint(f"  {text}", "dim", sys.stderr)),
    )
    output.problems(built.problems)
    if built.locked:
        output.note(f"  locked: {FILE} written")
    return built


def _nothing() -> Situation:
    """What a server that does not run yet serves."""
    return Situation(host=Host(flashfw=flashfw.__version__, api=API))


def _greet(place: shipping.Place) -> None:
    """See whether the server takes releases of ours.

    The local one is this user's: where the kept key is of another that was at its address, it gets a new one.
    """
    from flashfw.client import credentials

    with place.target() as target:
        try:
            target.host()
            target.releases()  # which takes an admin's key
        except RefusedError:
            if place.name != LOCAL or server.KEY in os.environ:
                raise
            credentials.save(target.url, local.make_key(server.local_folder(place.settings.name), author()))


def _start_local(place: shipping.Place) -> None:
    from flashfw.client import credentials

    is_declared = any(found.name == LOCAL and found.url for found in place.settings.environments)
    url = place.environment.url or ""
    data = server.local_folder(place.settings.name)
    output.note("no local server runs: starting one")
    started = local.start(data, url if is_declared else local.free(url))
    if started.key:
        credentials.save(started.url, started.key)
    output.note(f"  {started.url}, pid {started.pid}; `flashfw remove {LOCAL}` stops it")
    output.note(f"  data in {data}, log in {started.log}")
