"""The options and arguments that several verbs share, so that they have one name and one help text."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from flashfw import durations

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
root = click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The project's folder; else the nearest flashfw.toml.",
)


def environment(text: str) -> Callable[[Decorated], Decorated]:
    """`--env`, with what it means to the verb; `dev` unless given."""
    return click.option("--env", "environment", metavar="NAME", default="dev", help=text)


def server(command: Decorated) -> Decorated:
    """`--env`, `--url` and `--root`, which name a server; the verb gets it as `where`."""
    from flashfw.cli.server import locate  # of those who speak to a server; others need not import it

    @environment("The environment to ask.")
    @click.option("--url", metavar="ADDRESS", help="A server's address instead.")
    @root
    @functools.wraps(command)
    def located(*arguments: Any, environment: str, url: str | None, root: Path | None, **given: Any) -> Any:
        return command(*arguments, where=locate(url=url, environment=environment, root=root), **given)

    return cast(Decorated, located)


def asked(command: Decorated) -> Decorated:
    """What a caller may ask for one job, as `asked`: `CallOptions` of the client."""

    @click.option("--timeout", "timeout_s", metavar="DURATION", callback=duration, help="For one attempt: 90s, 10m.")
    @click.option("--ttl", "ttl_s", metavar="DURATION", callback=duration, help="For its wait in the queue.")
    @click.option("--priority", type=click.Choice(["low", "normal", "high"]), help="Its place in the queue.")
    @click.option("--webhook", metavar="URL", help="Who is told of its end.")
    @click.option("--idempotency-key", metavar="KEY", help="Calls with one key and the same input are one job.")
    @functools.wraps(command)
    def asking(*arguments: Any, **given: Any) -> Any:
        names = ("timeout_s", "ttl_s", "priority", "webhook", "idempotency_key")
        found = {name: given.pop(name) for name in names}
        return command(*arguments, asked={name: it for name, it in found.items() if it is not None}, **given)

    return cast(Decorated, asking)


def duration(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Callback of an option that takes a duration: in seconds, None unless given."""
    if value is None:
        return None
    seconds = durations.parse(value, bare=True)
    if seconds is None:
        raise click.BadParameter(f"{value!r} is no duration: write 90s, 10m, 2h, or seconds")
    return seconds


def selection(command: Decorated) -> Decorated:
    """`IDS`, `-k` and `-m`, as `ids`, `keyword` and `marks`."""
    parameters = (
        click.argument("ids", nargs=-1, metavar="[IDS]..."),
        click.option("-k", "keyword", metavar="EXPR", default="", help="Ids that hold these words: and, or, not, ()."),
        click.option("-m", "marks", metavar="EXPR", default="", help="Functions with these marks: and, or, not, ()."),
    )
    for parameter in reversed(parameters):
        command = parameter(command)
    return command
