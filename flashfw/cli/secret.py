"""`flashfw secret`: the secrets of an environment."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from urllib.parse import quote

import click

from flashfw.cli import options, output, server
from flashfw.cli.asking import ask
from flashfw.cluster.explaining.moments import duration
from flashfw.errors import UsageError


@click.group()
def command() -> None:
    """Set, list and remove the secrets of an environment.

    A secret arrives in the workers whose endpoint.toml names it, as a variable. Its server keeps it encrypted and tells
    it to nobody else.
    """


@command.command("set")
@click.argument("environment", metavar="ENV")
@click.argument("name")
@click.argument("value", metavar="[VALUE|-]", required=False)
@options.root
@options.json
def set_secret(environment: str, name: str, *, value: str | None, root: Path | None, as_json: bool) -> None:
    """Set a secret; the workers that have it are replaced.

    Without VALUE it is asked for, or read from standard input where nobody sits there; - reads it from there, too.
    One newline at its end is left out.
    """
    place = _place(environment, root)
    if value is None or value == "-":
        value = _read(f"{name}: ", asks=value is None)
    else:
        warning = output.paint("warning:", "yellow", sys.stderr)
        output.note(f"{warning} a value on the command line is in the shell's history, and others see it in `ps`")
        output.note(f"  better: flashfw secret set {environment} {name}, and type it")
    with place.client() as client:
        done = ask(client, "PUT", f"secrets/{quote(name, safe='')}", json={"value": value})
    if as_json:
        output.document(done)
    elif not done["changed"]:
        output.line(f"unchanged  {name} had this value")
    else:
        rolls = ", ".join(map(output.printable, done["rolls"]))
        output.line(
            f"set  {name}" + (f"; new workers for {rolls}" if rolls else "; nothing that is served there names it")
        )


@command.command("list")
@click.argument("environment", metavar="ENV")
@options.root
@options.json
def list_secrets(environment: str, *, root: Path | None, as_json: bool) -> None:
    """List names, dates and who needs them; values are told to nobody."""
    place = _place(environment, root)
    with place.client() as client:
        found = ask(client, "GET", "secrets")["secrets"]
    if as_json:
        output.document({"secrets": found})
        return
    now = time.time()
    rows = [
        [
            one["name"],
            f"set {duration(max(0.0, now - one['updated']))} ago",
            ", ".join(one["endpoints"]) or "not needed",
        ]
        for one in found
    ]
    for line in output.columns([[output.printable(cell) for cell in row] for row in rows]) if rows else ():
        output.line(line)
    if not rows:
        output.note(f"{place.url} has no secrets; `flashfw secret set {environment} NAME` sets one")


@command.command("remove")
@click.argument("environment", metavar="ENV")
@click.argument("name")
@click.option("--force", is_flag=True, help="Even while an endpoint of the current release needs it.")
@options.root
@options.json
def remove(environment: str, name: str, *, force: bool, root: Path | None, as_json: bool) -> None:
    """Remove a secret."""
    place = _place(environment, root)
    with place.client() as client:
        done = ask(client, "DELETE", f"secrets/{quote(name, safe='')}", params={"force": 1} if force else None)
    if as_json:
        output.document(done)
        return
    output.line(f"removed  {name}")
    if done["endpoints"]:
        needed = ", ".join(map(output.printable, done["endpoints"]))
        output.note(f"  {needed} named it: workers that run keep it, and new ones do not start until it is set again")


def _place(environment: str, root: Path | None) -> server.Server:
    if environment == server.DEV:
        raise UsageError(
            "'dev' takes its secrets from this machine", hint="export NAME=value, or write it as a line of .env"
        )
    return server.locate(url=None, environment=environment, root=root)


def _read(prompt: str, *, asks: bool) -> str:
    if asks and sys.stdin.isatty():
        return str(click.prompt(prompt.removesuffix(": "), hide_input=True, err=True))
    data = sys.stdin.buffer.read()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UsageError("the value is no text in UTF-8", hint="encode it first, by base64 for one") from None
    return text.removesuffix("\n").removesuffix("\r")
