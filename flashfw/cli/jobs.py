"""`flashfw jobs`: the jobs that a server holds, to list, show, cancel and try again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import click

from flashfw.cli import options, output, server
from flashfw.cli.lines import failure_text, short
from flashfw.client.client import Client
from flashfw.client.failures import StrangerError
from flashfw.cluster.explaining.moments import duration
from flashfw.errors import Exit, FlashfwError, TargetError, UsageError

MOST = 100_000
"""How many dead letters `retry --dead` takes at once."""

COLOURS = {"COMPLETED": "green", "FAILED": "red", "TIMED_OUT": "red", "CANCELLED": "yellow"}


@click.group()
def command() -> None:
    """List, show, cancel and retry jobs.

    A job is named by its id or by any part of it (6 characters or more) that no other id has: the end, as `flashfw dev`
    and `jobs list` show it.
    """


@command.command("list")
@click.option("--function", metavar="ID", help="Only jobs of this function.")
@click.option("--state", metavar="STATE", help="Only jobs in this state, such as IN_QUEUE or FAILED.")
@click.option("--dead", is_flag=True, help="Only dead letters: failed after more than one attempt.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, newest first.")
@options.server
@options.json
def list_jobs(
    *, function: str | None, state: str | None, dead: bool, limit: int, where: server.Server, as_json: bool
) -> None:
    """List the newest jobs."""
    with where.client() as client:
        found = client.jobs(function=function, state=state, dead=dead, limit=limit)
    if as_json:
        output.document({"jobs": found})
    elif found:
        now = time.time()
        for line in output.columns([_row(record, now) for record in found]):
            output.line(line)
    else:
        output.note("no such jobs" if function or state or dead else f"{where.url} has no jobs")


@command.command("show")
@click.argument("job")
@options.server
@options.json
def show(job: str, *, where: server.Server, as_json: bool) -> None:
    """Show all that is stored of one job, its input and output too."""
    with where.client() as client:
        record = client.record(job)
    if as_json:
        output.document(record)
        return
    shown = {name: value for name, value in record.items() if value not in (None, "", False) and name != "error"}
    for name, value in shown.items():
        output.line(f"{_label(name):<16}{output.printable(_value(name, value))}")
    if record.get("error"):
        output.line(f"{'error':<16}{output.printable(failure_text(record['error']))}")


@command.command("cancel")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@options.server
@options.json
def cancel(jobs: tuple[str, ...], *, where: server.Server, as_json: bool) -> int:
    """Cancel jobs, queued or running."""

    def one(client: Client, job: str) -> str:
        status = client.cancel(job).status
        if status != "CANCELLED":
            raise TargetError(f"job {job} had ended: {status}")
        return status

    with where.client() as client:
        return _each(client, jobs, one, as_json=as_json)


@command.command("retry")
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--dead", is_flag=True, help="All dead letters: failed after more than one attempt.")
@click.option("--function", metavar="ID", help="With --dead: only those of this function.")
@options.server
@options.json
def retry(jobs: tuple[str, ...], *, dead: bool, function: str | None, where: server.Server, as_json: bool) -> int:
    """Queue jobs again that failed or ran out of time, with their input and attempts from zero."""
    if bool(jobs) == dead:
        raise UsageError("name jobs or give --dead, one of them", hint="flashfw jobs list --dead shows which those are")
    if function and not dead:
        raise UsageError("--function goes with --dead")
    with where.client() as client:
        named = jobs or tuple(record["id"] for record in client.jobs(function=function, dead=True, limit=MOST))
        if not named and not as_json:
            output.note("no dead letters")
        return _each(client, named, lambda client, job: client.retry(job).status, as_json=as_json)


def _each(client: Client, jobs: Iterable[str], do: Callable[[Client, str], str], *, as_json: bool) -> int:
    """Do it to each job; one that cannot be is told, and the others go on. A server that is gone ends it."""
    done: list[dict[str, Any]] = []
    failed: list[FlashfwError] = []
    for job in jobs:
        try:
            status = do(client, job)
        except FlashfwError as error:
            # Nobody answers, or somebody else: nor will anybody for the next one.
            if isinstance(error, StrangerError) or isinstance(error.__cause__, Exception):
                raise
            failed.append(error)
            done.append({"job": job, "error": error.what})
            if not as_json:
                output.failure(error, as_json=False)
        else:
            done.append({"job": job, "state": status})
            if not as_json:
                output.line(f"{output.printable(job)}  {status}")
    if as_json:
        output.document({"jobs": done})
    if failed:
        return failed[0].exit if len(done) == 1 and not isinstance(failed[0], TargetError) else Exit.FAILED
    return Exit.DONE


def _row(record: dict[str, Any], now: float) -> list[str]:
    state = record["state"]
    reason = f" {record['reason']}" if record.get("reason") else ""
    return [
        short(record["id"]),
        output.paint(state, COLOURS[state]) + reason if state in COLOURS else state + reason,
        output.printable(record["function"]),
        f"{duration(max(0.0, now - record['submitted_at']))} ago",
        _ran(record, now),
        f"attempt {record['attempt']}" if record["attempt"] > 1 else "",
        output.paint("dead letter", "red") if record["dead"] else "",
    ]


def _ran(record: dict[str, Any], now: float) -> str:
    begun, ended = record["started_at"], record["finished_at"]
    if begun is None:
        return ""
    return f"ran {duration(max(0.0, ended - begun))}" if ended else f"runs for {duration(max(0.0, now - begun))}"


def _label(name: str) -> str:
    """A field of the record for people: its value shows the unit."""
    return name.removesuffix("_s").removesuffix("_at").replace("_", " ")


def _value(name: str, value: Any) -> str:
    import json

    if name.endswith("_at") and isinstance(value, (int, float)):
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(value))
    if name.endswith("_s") and isinstance(value, (int, float)):
        return duration(value)
    return value if isinstance(value, str) and name != "output" else json.dumps(value, ensure_ascii=False)
