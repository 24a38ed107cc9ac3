"""`flashfw logs`: what the workers of a server wrote, and how they fared."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import httpx

from flashfw.cli import options, output, server
from flashfw.cli.asking import refused
from flashfw.cli.lines import short
from flashfw.client.client import Client
from flashfw.errors import Exit, TargetError, UsageError

QUIET_S = 45.0
"""A server that follows says something, if only an empty line, three times in this."""

_AGAIN_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""How long to wait before each further try to go on following: a server may be starting anew."""


@click.command()
@click.argument("environment", metavar="ENV")
@click.argument("endpoint", metavar="[ID]", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--lines", "-n", type=click.IntRange(0, 100_000), help="At most so many; 100, or all with --since.")
@click.option("--since", "since_s", metavar="DURATION", callback=options.duration, help="Not older than: 90s, 10m, 2h.")
@click.option("--job", metavar="ID", help="Only what this job wrote: its id, or 6 or more characters of it.")
@options.root
@click.option("--json", "as_json", is_flag=True, help="Print each line as a JSON document.")
def command(
    environment: str,
    endpoint: str | None,
    *,
    follow: bool,
    lines: int | None,
    since_s: float | None,
    job: str | None,
    root: Path | None,
    as_json: bool,
) -> int:
    """Show what the workers of an environment wrote.

    ENV is an environment of flashfw.toml, ID an endpoint or a function of one; without it all are shown. Ctrl-C
    ends --follow with exit code 0.
    """
    if environment == server.DEV:
        raise UsageError("`flashfw dev` writes its logs to its own terminal, and keeps none")
    where = server.locate(url=None, environment=environment, root=root)
    asked = {"endpoint": endpoint, "lines": lines, "since": since_s, "job": job}
    given = {name: value for name, value in asked.items() if value is not None}
    count = 0
    with where.client() as client:
        try:
            told = _followed(client, given) if follow else _told(client, given)
            for line in filter(None, told):
                count += 1
                _show(line, as_json=as_json, tags=endpoint is None)
        except KeyboardInterrupt:
            if not follow:
                raise
            return Exit.DONE
    if not count:
        output.note("nothing was written there yet" if len(given) <= (endpoint is not None) else "no such lines")
    return Exit.DONE


def _told(client: Client, asked: dict[str, Any]) -> Iterator[str]:
    """The lines of one answer, and empty ones where there was nothing to tell."""
    timeout = httpx.Timeout(QUIET_S, connect=5.0)
    with client.streaming("GET", "/_flashfw/logs", params=asked, timeout=timeout) as response:
        if not response.is_success:
            response.read()
            raise refused(client, "logs", response)
        yield from response.iter_lines()


def _followed(client: Client, asked: dict[str, Any]) -> Iterator[str]:
    """Lines as they come; a connection that breaks is made anew, and goes on after the last line that came."""
    asked = {**asked, "follow": 1}
    tries, is_begun = 0, False
    while True:
        broken = TargetError(f"{client.url} ended the log")
        try:
            for line in _told(client, asked):
                tries, is_begun = 0, True
                if line:
                    yield line
                    asked = {**asked, "after": json.loads(line)["at"], "lines": 100_000}
                    asked.pop("since", None)
        except TargetError as error:
            if (
                not isinstance(error.__cause__, httpx.HTTPError) or not is_begun
            ):  # the server said no, or was never there
                raise
            broken = error
        if tries >= len(_AGAIN_S):
            raise broken
        if not tries:
            output.note(f"{output.paint('...', 'yellow', sys.stderr)} {output.printable(broken.what)}; asking again")
        time.sleep(_AGAIN_S[tries])
        tries += 1


def _show(line: str, *, as_json: bool, tags: bool) -> None:
    if as_json:
        output.line(line)
    else:
        entry = json.loads(line)
        first, *rest = str(entry["text"]).split("\n")
        output.line(f"{_head(entry, tags=tags)} {_painted(entry, first)}")
        for more in rest:
            output.line(f"    {_painted(entry, more)}")
    sys.stdout.flush()


def _head(entry: dict[str, Any], *, tags: bool) -> str:
    moment = datetime.fromtimestamp(entry["at"])
    parts = [entry["endpoint"] if tags else "", short(entry["job"]) if entry["job"] else "", entry["worker"]]
    tag = output.printable(" ".join(part for part in parts[: 3 if not entry["job"] else 2] if part))
    return output.paint(f"{moment:%m-%d %H:%M:%S}", "dim") + (f" {output.paint(f'[{tag}]', 'cyan')}" if tag else "")


def _painted(entry: dict[str, Any], text: str) -> str:
    shown = "\t".join(output.printable(part) for part in text.rstrip("\r").rpartition("\r")[2].split("\t"))
    if entry.get("level") in ("error", "critical"):
        return output.paint(shown, "red")
    return output.paint(shown, "dim") if entry["stream"] in ("worker", "logs") else shown
