"""`flashfw lock`: pin what every endpoint's environment holds, in one committed file."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from flashfw.build import lock, lock_changes, resolving
from flashfw.build.lock import FILE, PLATFORM, Lock
from flashfw.build.lock_changes import Change
from flashfw.cli import options, output
from flashfw.cli.collect import nothing
from flashfw.errors import Exit, Problem, UsageError
from flashfw.project import root as roots
from flashfw.project.collect import collect
from flashfw.project.model import Project

_PLATFORM = re.compile(r"(x86_64|aarch64)-(manylinux2014|manylinux_2_\d+|unknown-linux-(gnu|musl)|apple-darwin)")
_SHORT = {"linux": PLATFORM, "linux-arm": PLATFORM.replace("x86_64", "aarch64"), "macos": "aarch64-apple-darwin"}


@click.command()
@click.option(
    "--upgrade", is_flag=False, flag_value="", metavar="[NAME]", help="Move to new versions: of all, or of one package."
)
@click.option("--platform", metavar="P", help="linux, linux-arm, macos, or as uv names it.")
@click.option("--check", is_flag=True, help="Change nothing; end with 2 if the lock is not up to date.")
@options.root
@options.json
def command(upgrade: str | None, platform: str | None, check: bool, root: Path | None, as_json: bool) -> int:
    """Pin the packages of every endpoint in flashfw.lock.

    What is pinned stays so until --upgrade. Commit the file.
    """
    if check and upgrade is not None:
        raise UsageError("--check changes nothing, and --upgrade does", hint="give one of them")
    project = collect(roots.find(Path.cwd(), explicit=root))
    if not project.endpoints and not project.problems:
        raise nothing(project)
    previous = lock.load(project.root.path)
    wanted = _platform(platform, previous)
    if check:
        return _check(project, previous, wanted, as_json=as_json)
    began = time.monotonic()
    made = resolving.lock(
        project,
        previous=previous,
        upgrade=upgrade == "" or ([] if upgrade is None else upgrade.split(",")),
        platform=wanted,
        variables=os.environ,
        tell=output.note,
    )
    if made is not previous:
        lock.save(project.root.path, made)
    moved = lock_changes.changes(previous, made)
    if as_json:
        output.document(_document(made, moved, changed=made is not previous))
    else:
        _show(previous, made, moved, took_s=time.monotonic() - began)
    return Exit.DONE


def _platform(given: str | None, previous: Lock | None) -> str:
    """What is asked for, else what the lock is for, else Linux on x86_64."""
    if given is None:
        return previous.environments[0].platform if previous and previous.environments else PLATFORM
    found = _SHORT.get(given, given)
    if not _PLATFORM.fullmatch(found):
        hint = f"name {', '.join(_SHORT)}, or one as uv does: {PLATFORM}"
        raise UsageError(f"--platform {given!r} is none that flashfw locks for", hint=hint)
    return found


def _check(project: Project, previous: Lock | None, platform: str, *, as_json: bool) -> int:
    found = list(resolving.check(project, previous))
    others = {environment.platform for environment in (previous.environments if previous else ())} - {platform}
    if others:
        found.append(
            Problem(f"is for {', '.join(sorted(others))}, not for {platform}", FILE, hint="run `flashfw lock`")
        )
    if as_json:
        output.document({"file": FILE, "current": not found, "problems": [output.problem_json(one) for one in found]})
    output.problems(found)
    if not found and not as_json:
        output.line(f"{FILE} is up to date")
    return Exit.PROBLEMS if found else Exit.DONE


def _show(previous: Lock | None, made: Lock, moved: Sequence[Change], *, took_s: float) -> None:
    if made is previous:
        output.line(f"{FILE} is up to date")
        return
    if previous is not None and moved:
        for line in output.columns([_cells(change) for change in moved]):
            output.line(f"  {line}")
    endpoints = {name.partition("@")[0] for environment in made.environments for name in environment.endpoints}
    packages = {package for environment in made.environments for package in environment.packages}
    counts = [(len(made.environments), "environment"), (len(endpoints), "endpoint"), (len(packages), "package")]
    environments, of, held = (output.plural(count, noun) for count, noun in counts)
    platform = made.environments[0].platform if made.environments else PLATFORM
    output.line(f"locked {held} in {environments} of {of} for {platform} ({took_s:.1f} s): {FILE} written, commit it")


def _cells(change: Change) -> list[str]:
    if change.before == change.after:
        version = f"{change.after} (another archive)"
    elif not change.before:
        version = f"{change.after} (new)"
    else:
        version = f"{change.before} -> {change.after}" if change.after else f"{change.before} (gone)"
    return [change.name, version, ", ".join(change.endpoints)]


def _document(made: Lock, moved: Sequence[Change], *, changed: bool) -> dict[str, Any]:
    return {
        "file": FILE,
        "changed": changed,
        "environments": [dataclasses.asdict(environment) for environment in made.environments],
        "changes": [dataclasses.asdict(change) for change in moved],
    }
