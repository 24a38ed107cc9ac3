"""`flashfw dev`: serve the project on this machine and follow what is saved."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

import flashfw
from flashfw.cli import options, output
from flashfw.cli.lines import Lines, header
from flashfw.cluster.events import Event
from flashfw.project import root as roots
from flashfw.project import select
from flashfw.project.settings import load_settings

BY_THE_THOUSAND = frozenset({"request", "job"})
"""Events of which a moment may tell many: their lines are written together."""
SHOWN_WITHIN_S = 0.02
"""Sooner than anybody sees; a line written for each call by itself is a large part of what one costs."""


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address to listen on; beyond loopback a key is needed.")
@click.option("--port", "-p", type=click.IntRange(0, 65_535), help="Port to listen on; 0 takes a free one.")
@click.option("--cron", is_flag=True, help="Start jobs by the clock, as `schedule` says.")
@click.option("--database", metavar="URL", help="PostgreSQL database to keep the jobs in; servers may share it.")
@options.selection
@options.root
@options.json
def command(
    ids: tuple[str, ...],
    *,
    host: str | None,
    port: int | None,
    cron: bool,
    database: str | None,
    keyword: str,
    marks: str,
    root: Path | None,
    as_json: bool,
) -> None:
    """Serve the project on this machine and reload as files change.

    The JSON document says where it serves, once it does.
    """
    import anyio
    import platformdirs

    from flashfw.cluster.trouble import as_told
    from flashfw.dev.server import Options

    project = roots.find(Path.cwd(), explicit=root)
    settings, _ = load_settings(project)
    chosen = Options(
        root=project,
        host=host or settings.host,
        port=settings.port if port is None else port,
        variables=dict(os.environ),
        cache=Path(platformdirs.user_cache_dir("flashfw")),
        cron=cron,
        database=database,
        selection=select.parse(ids, keyword=keyword, marks=marks),
    )
    output.note(header(flashfw.__version__, str(project.path), project.config.name))
    try:
        anyio.run(_serve, chosen, as_json, backend_options={"use_uvloop": sys.platform != "win32"})
    except BaseException as error:
        told = as_told(error, chosen.root.path, chosen.cache)
        if told is error:
            raise
        raise told from None


async def _serve(options: Any, as_json: bool) -> None:
    import anyio

    from flashfw.dev import server

    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_stop_on_signal, stop)
        with _printing(as_json) as emit:
            await server.run(options, emit=emit, stop=stop)
        tasks.cancel_scope.cancel()


async def _stop_on_signal(stop: Any) -> None:
    """The first Ctrl-C stops in good order; a second one at once. So does a terminal that is closed."""
    import anyio

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for number in signals:
            if stop.is_set():
                signal.signal(number, signal.SIG_DFL)  # workers notice that they are alone, and end
                os.killpg(0, number) if os.getpgrp() == os.getpid() else os.kill(os.getpid(), number)
            _print("stopping (again to stop at once)" if number == signal.SIGINT else "stopping")
            stop.set()


@contextmanager
def _printing(as_json: bool) -> Iterator[Any]:
    """An `Emit` that prints, for as long as the block runs; what comes by the thousand in a moment goes together."""
    import asyncio

    lines = Lines()
    waiting: list[str] = []

    def flush() -> None:
        if waiting:
            _print("\n".join(waiting))
            waiting.clear()

    def emit(event: Event) -> None:
        if event.name == "serving" and as_json:
            output.document({"url": event.fields["url"], "key": event.fields["key"], "pid": os.getpid()})
            sys.stdout.flush()
        if event.name == "problems":
            flush()
            with suppress(OSError):
                output.problems(event.fields["problems"])
        if told := lines.render(event):
            waiting.extend(told)
            if event.name not in BY_THE_THOUSAND:
                flush()
            elif len(waiting) == len(told):
                asyncio.get_running_loop().call_later(SHOWN_WITHIN_S, flush)

    try:
        yield emit
    finally:
        flush()


def _print(line: str) -> None:
    """One line, for whoever still reads: the server outlives its terminal, and `| head`."""
    with suppress(OSError):
        output.note(line)
