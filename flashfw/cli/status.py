"""`flashfw status`: workers, queues and the autoscaler's reasons of a running server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from flashfw.cli import options, output, server
from flashfw.cli.lines import failure_text
from flashfw.cluster.explaining.moments import duration


@click.command()
@click.argument("environment", metavar="[ENV]", default=server.DEV)
@click.option("--url", metavar="ADDRESS", help="A server's address instead.")
@options.root
@options.json
def command(environment: str, *, url: str | None, root: Path | None, as_json: bool) -> None:
    """Show workers, queues and the autoscaler's reasons.

    ENV is an environment of flashfw.toml; without it, the `flashfw dev` of this project.
    """
    where = server.locate(url=url, environment=environment, root=root)
    drifted = None
    if url is not None or environment == server.DEV:
        with where.client() as client:
            status = client.status()
    else:
        from flashfw.cli import drifting  # the modules of those who ship

        status, drifted = drifting.status(where, environment=environment, root=root)
        status["drift"] = drifted.document if drifted else None
    if as_json:
        output.document(status)
        return
    output.line(f"{output.paint(status['project'], 'bold')}  {status['environment']}  {where.url}")
    if release := status.get("release"):
        by = f" by {output.printable(str(release['by']))}" if release.get("by") else ""
        output.line(f"release {release['id']}{by}, {duration(release['age_s'])} ago")
    if running := status.get("rollout"):
        age = f", for {duration(running['age_s'])}" if running["age_s"] is not None else ""
        what = f"rollout {running['number']} of release {running['release']} by {running['by']} goes on{age}"
        output.line(output.paint(output.printable(what), "yellow"))
    for endpoint in status["endpoints"]:
        for line in _lines(endpoint):
            output.line(line)
    for line in drifted.lines if drifted else ():
        output.line(line)
    if not status["endpoints"]:
        output.line("\nnothing is served there")


def _lines(endpoint: dict[str, Any]) -> Iterator[str]:
    states = Counter(worker["state"] for worker in endpoint["workers"])
    workers = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"
    most = endpoint["workers_max"]
    yield f"\n{output.paint(output.printable(endpoint['id']), 'bold')}  workers: {workers} (at most {most})"
    if endpoint["scaling"]:
        yield f"  scaler: {endpoint['scaling']}"
    if last := endpoint.get("scaled"):
        yield output.paint(f"  {duration(last['ago_s'])} ago: {output.printable(str(last['reason']))}", "dim")
    if whys := {worker.get("why") for worker in endpoint["workers"] if worker["state"] == "THROTTLED"} - {None, ""}:
        yield f"  {output.paint('throttled:', 'yellow')} {output.printable('; '.join(sorted(whys)))}"
    if refused := {str(worker.get("process")) for worker in endpoint["workers"]} - {"forked", "spawned", "None"}:
        yield output.paint(f"  {output.printable('; '.join(sorted(refused)))}", "dim")
    if failure := endpoint["failure"]:
        again = f"; the next try is in {duration(endpoint['retry_in_s'])}" if endpoint["retry_in_s"] else ""
        first = output.printable(failure_text(failure).partition("\n")[0])
        yield f"  {output.paint('does not start:', 'red')} {first}{again}"
    yield from output.columns([_queue(queue) for queue in endpoint["queues"]])
    if not endpoint["queues"] and endpoint["queued"]:
        yield f"  {output.plural(endpoint['queued'], 'call')} held"


def _queue(queue: dict[str, Any]) -> list[str]:
    return [
        f"  {output.printable(queue['function'])}",
        f"{queue['claimable']} waiting" if queue["claimable"] else "",
        f"{queue['parked']} for a retry" if queue["parked"] else "",
        f"{queue['running']} running" if queue["running"] else "",
        f"{queue['completed']} completed",
        f"{queue['failed']} failed" if queue["failed"] else "",
    ]
