"""`flashfw why`: the story of one job, event by event, with what each took and why."""

from __future__ import annotations

from typing import Any

import click

from flashfw.cli import options, output, server
from flashfw.client.client import Client
from flashfw.client.failures import UnknownJobError
from flashfw.cluster.explaining.moments import duration

COLOURS = {
    "completed": "green",
    "failed": "red",
    "timed_out": "red",
    "cancelled": "yellow",
    "waits": "yellow",
    "runs": "cyan",
    "job_retry": "yellow",
    "job_requeued": "yellow",
    "start_failed": "red",
    "store_failed": "red",
}


@click.command()
@click.argument("job", required=False)
@options.server
@options.json
def command(job: str | None, *, where: server.Server, as_json: bool) -> None:
    """Tell why a job waited, failed, was slow or still waits.

    JOB is an id or any part of it (6 characters or more) that no other has, such as its end; without it, the newest
    job is meant.
    """
    with where.client() as client:
        story = client.why(job or _newest(client))
    if as_json:
        output.document(story)
        return
    output.line(f"{output.paint(story['id'], 'bold')}  {output.printable(story['summary'])}")
    output.line()
    for line in output.columns([_row(moment) for moment in story["moments"]], right=2):
        output.line(line)


def _newest(client: Client) -> str:
    if not (found := client.jobs(limit=1)):
        raise UnknownJobError(f"{client.url} has no jobs", hint="make one: flashfw call ID INPUT")
    newest: str = found[0]["id"]
    return newest


def _row(moment: dict[str, Any]) -> list[str]:
    """When it was, what it took, what happened."""
    took = moment.get("took_s")
    words = output.printable(str(moment["text"]))
    colour = COLOURS.get(moment["what"])
    return [
        output.paint(f"+{duration(moment['offset_s'])}" if moment["offset_s"] else "0", "dim"),
        "" if took is None else output.paint(duration(took), "dim"),
        output.paint(words, colour) if colour else words,
    ]
