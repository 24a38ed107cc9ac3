"""`flashfw key`: the keys of a server, and the one that is kept for it here."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from flashfw.cli import options, output, server
from flashfw.cli.asking import ask, refused, url
from flashfw.client import credentials
from flashfw.client.client import Client
from flashfw.cluster.auth import keys
from flashfw.cluster.auth.store import Keys
from flashfw.cluster.clock import SystemClock
from flashfw.cluster.explaining.moments import duration
from flashfw.cluster.state import FILE, State
from flashfw.errors import UsageError

Json = dict[str, Any]

data = click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A server's data on this machine instead; that needs no key.",
)


@click.group()
def command() -> None:
    """Make, list, revoke and keep keys of a server.

    ENV is an environment of flashfw.toml. In its place --url takes an address, and --data a server's folder on this
    machine.
    """


@command.command("create")
@click.argument("words", nargs=-1, metavar="[ENV] NAME")
@click.option("--scope", type=click.Choice(keys.SCOPES), default="call", show_default=True, help="What it may do.")
@data
@url
@options.root
@options.json
def create(
    words: tuple[str, ...],
    *,
    scope: keys.KeyScope,
    data: Path | None,
    url: str | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Make a key, and print it: it is shown this once.

    NAME says who has it, such as ci. A key with the scope call may use functions, one with admin may do everything.
    """
    environment, name = _words(words, "NAME", data=data, url=url)
    if data is not None:
        with _kept_in(data) as kept:
            key, text = kept.create(name, scope)
            made: Json = {**keys.document(key), "key": str(text)}
    else:
        with _client(environment, url, root) as client:
            made = ask(client, "POST", "keys", json={"name": name, "scope": scope})
    if as_json:
        output.document(made)
        return
    output.line(made["key"])
    output.note(f"  {output.printable(made['name'])} ({made['id']}), scope {made['scope']}; it is not shown again")
    output.note("  keep it here by `flashfw key save`, or give it to a program as FLASHFW_KEY")


@command.command("list")
@click.argument("environment", metavar="[ENV]", required=False)
@data
@url
@options.root
@options.json
def list_keys(environment: str | None, *, data: Path | None, url: str | None, root: Path | None, as_json: bool) -> None:
    """List keys: never their text, which the server does not know itself."""
    _one_of(environment, data=data, url=url)
    if data is not None:
        with _kept_in(data) as kept:
            found = [keys.document(key) for key in kept.all()]
    else:
        with _client(environment, url, root) as client:
            found = ask(client, "GET", "keys")["keys"]
    if as_json:
        output.document({"keys": found})
        return
    now = time.time()
    for line in output.columns([_row(key, now) for key in found]) if found else ():
        output.line(line)
    if not found:
        output.note("there are no keys yet")


@command.command("revoke")
@click.argument("words", nargs=-1, metavar="[ENV] ID")
@click.option("--force", is_flag=True, help="The last admin key, too; with --data.")
@data
@url
@options.root
@options.json
def revoke(
    words: tuple[str, ...], *, force: bool, data: Path | None, url: str | None, root: Path | None, as_json: bool
) -> None:
    """Let a key open nothing any more, at once.

    Streams that were begun with it are cut; calls that were accepted are answered.
    """
    environment, key_id = _words(words, "ID", data=data, url=url)
    if keys.read(key_id) is not None:
        key_id = key_id.split("_")[1]  # the whole key was pasted
    if force and data is None:
        raise UsageError("--force is for the server's own machine", hint="flashfw key revoke --data FOLDER --force ID")
    if data is not None:
        with _kept_in(data) as kept:
            revoked = keys.document(kept.revoke(key_id, force=force))
    else:
        with _client(environment, url, root) as client:
            revoked = ask(client, "DELETE", f"keys/{quote(key_id, safe='')}")
    if as_json:
        output.document(revoked)
    else:
        output.line(f"revoked  {revoked['id']}  {output.printable(str(revoked['name']))}")


@command.command("save")
@click.argument("environment", metavar="[ENV]", required=False)
@url
@options.root
@options.json
def save(environment: str | None, *, url: str | None, root: Path | None, as_json: bool) -> None:
    """Keep a key for a server; it is read from standard input, or asked for.

    The server is asked whether the key holds. All commands that speak to that server use it from then on.
    """
    _one_of(environment, data=None, url=url)
    place = server.address(url=url, environment=environment or server.DEV, root=root)
    text = _typed("Key: ")
    if keys.read(text) is None:
        raise UsageError(
            "that is no key", hint="a key begins with fw_ and has 55 characters, as `key create` prints it"
        )
    server.warn_if_exposed(place.url)
    _check(replace(place, key=text))
    kept = credentials.save(place.url, text)
    if as_json:
        output.document({"url": credentials.origin(place.url), "file": str(kept)})
    else:
        output.line(f"saved  the key {text.split('_')[1]} for {credentials.origin(place.url)} in {kept}")


@command.command("forget")
@click.argument("environment", metavar="[ENV]", required=False)
@url
@options.root
@options.json
def forget(environment: str | None, *, url: str | None, root: Path | None, as_json: bool) -> None:
    """Keep no key for a server any more. The key itself still holds: `revoke` ends it."""
    _one_of(environment, data=None, url=url)
    place = server.address(url=url, environment=environment or server.DEV, root=root)
    was_there = credentials.forget(place.url)
    if as_json:
        output.document({"url": credentials.origin(place.url), "forgotten": was_there})
    else:
        output.line(f"{'forgotten' if was_there else 'no key was kept'}  {credentials.origin(place.url)}")


def _words(words: tuple[str, ...], last: str, *, data: Path | None, url: str | None) -> tuple[str | None, str]:
    """The environment, where one is to be given, and what comes after it."""
    given = [*words] if data is None and url is None else [None, *words]
    if len(given) != 2 or given[1] is None:
        shape = f"ENV {last}" if data is None and url is None else last
        raise UsageError(f"give {shape}: {len(words)} words were given", hint="`flashfw key --help` says how")
    _one_of(given[0], data=data, url=url)
    return given[0], given[1]


def _one_of(environment: str | None, *, data: Path | None, url: str | None) -> None:
    given = [what for what in (environment, data, url) if what is not None]
    if len(given) != 1:
        raise UsageError(
            "which server?" if not given else "give one of ENV, --url and --data",
            hint="an environment of flashfw.toml, --url ADDRESS, or --data FOLDER on the server's machine",
        )


def _client(environment: str | None, url: str | None, root: Path | None) -> Client:
    where = server.locate(url=url, environment=environment or server.DEV, root=root)
    return where.client()


@contextmanager
def _kept_in(folder: Path) -> Iterator[Keys]:
    """The keys of a server on this machine, running or not; what is changed holds for one that runs, at once."""
    place = folder / FILE
    if not place.is_file() or not place.stat().st_size:
        found = "is empty" if place.is_file() else "is not there"
        raise UsageError(
            f"{folder} holds no server's data: its {FILE} {found}",
            hint="`flashfw serve` makes it at its first start",
        )
    with State(place) as state:
        yield Keys(state, SystemClock())


def _check(place: server.Server) -> None:
    """Ask a server whether the key for it holds.

    Raises:
        TargetError: it does not, or the server cannot be reached, or is none.
    """
    with place.client() as client, client.streaming("GET", "/openapi.json") as response:
        if not response.is_success:
            response.read()
            raise refused(client, "keys", response)


def _typed(prompt: str) -> str:
    """One line from standard input; asked for without an echo where somebody sits there."""
    if sys.stdin.isatty():
        return str(click.prompt(prompt.removesuffix(": "), hide_input=True, err=True)).strip()
    return sys.stdin.readline().strip()


def _row(key: Json, now: float) -> list[str]:
    used = "never used" if key["last_used"] is None else f"used {_ago(key['last_used'], now)}"
    revoked = "" if key["revoked"] is None else output.paint(f"revoked {_ago(key['revoked'], now)}", "yellow")
    return [key["id"], key["scope"], output.printable(key["name"]), f"made {_ago(key['created'], now)}", used, revoked]


def _ago(at: float, now: float) -> str:
    return f"{duration(max(0.0, now - at))} ago"
