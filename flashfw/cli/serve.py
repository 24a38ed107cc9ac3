"""`flashfw serve`: the cluster as a server, for releases that `flashfw ship` brings."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

import flashfw
from flashfw import durations
from flashfw.cli import options, output
from flashfw.errors import UsageError

PORT = 8899
GRACE = "10s"
LEAST_LOG_BYTES = 100_000
DETAILS = frozenset({"output"})
"""What people read with `flashfw logs`, and not among the server's own lines."""

CALLS = frozenset({"request", "job", "job_requeued", "job_retry", "scale", "worker", "schedule"})
"""What `--quiet` leaves out: all that goes as it should, and what a caller hears anyway."""


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="FOLDER", help="Where all is kept; else in your user's data."
)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", "-p", type=click.IntRange(0, 65_535), default=PORT, show_default=True, help="0 takes any.")
@click.option("--cert", type=click.Path(path_type=Path), metavar="FILE", help="Certificate and chain in PEM: TLS.")
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="The certificate's private key in PEM.")
@click.option("--database", metavar="URL", help="PostgreSQL database to keep the jobs in; servers may share it.")
@click.option("--as", "bound", metavar="PROJECT/ENV", help="What this server is of; else its first release says so.")
@click.option("--secret-key-file", type=click.Path(path_type=Path), metavar="FILE", help="The key of the secrets.")
@click.option("--grace", metavar="DURATION", default=GRACE, show_default=True, help="For open calls at a stop.")
@click.option("--log-size", metavar="SIZE", default="10MB", show_default=True, help="Of one file of an endpoint's log.")
@click.option("--log-files", type=click.IntRange(1, 1000), default=5, show_default=True, help="Kept per endpoint.")
@click.option("--quiet", is_flag=True, help="Print no line per request and job.")
@click.option("--print-unit", is_flag=True, help="Print a unit file for systemd, and serve nothing.")
@click.option("--gateway", hidden=True)
@options.json
def command(
    *,
    data: Path | None,
    host: str,
    port: int,
    cert: Path | None,
    key: Path | None,
    database: str | None,
    bound: str | None,
    secret_key_file: Path | None,
    grace: str,
    log_size: str,
    log_files: int,
    quiet: bool,
    print_unit: bool,
    gateway: str | None,
    as_json: bool,
) -> int | None:
    """Serve releases that `flashfw ship` brings to this machine.

    Ctrl-C or SIGTERM ends it in good order; SIGHUP starts it anew without refusing a connection, with renewed
    certificates and the flashfw that is installed then. The JSON document says where it serves, once it does.
    """
    from flashfw.cluster.logs.files import Rotation
    from flashfw.serve.options import Options

    chosen = Options(
        data=_folder(data),
        host=host,
        port=port,
        certificate=_certificate(cert, key),
        database=database,
        bound=_bound(bound),
        secret_key=None if secret_key_file is None else secret_key_file.absolute(),
        grace_s=_seconds(grace),
        rotation=Rotation(_bytes(log_size), log_files),
        quiet=quiet,
        variables=dict(os.environ),
    )
    if gateway is not None:
        return _answer(chosen, gateway)
    if print_unit:
        _print_unit(chosen)
        return None
    _supervise(chosen, as_json=as_json)
    return None


def _folder(data: Path | None) -> Path:
    if data is not None:
        return data.absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("flashfw")) / "server"


def _certificate(cert: Path | None, key: Path | None) -> Any:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UsageError(
            f"--{'key' if cert is None else 'cert'} comes with --{'cert' if cert is None else 'key'} alone"
        )
    from flashfw.serve.certificates import Certificate

    return Certificate(cert.absolute(), key.absolute())


def _bound(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    project, _, environment = text.partition("/")
    if not project or not environment or "/" in environment:
        raise UsageError(f"--as {text!r} names no project and environment", hint="write it as shop/prod")
    return project, environment


def _seconds(text: str) -> float:
    seconds = durations.parse(text, bare=True)
    if seconds is None:
        raise UsageError(f"--grace {text!r} is no duration", hint="write it as 10s or 2m")
    if not 1.0 <= seconds <= 3600.0:
        raise UsageError(f"--grace is {text!r}; it takes 1s to 1h")
    return seconds


def _bytes(text: str) -> int:
    from flashfw.project.values import Invalid, parse_size

    try:
        size = parse_size(int(text) if text.isascii() and text.isdigit() else text)
    except Invalid:
        raise UsageError(f"--log-size {text!r} is no size", hint="write it as 10MB") from None
    if size < LEAST_LOG_BYTES:
        raise UsageError(f"--log-size is {text!r}; it takes at least {LEAST_LOG_BYTES // 1000}kB")
    return size


def _print_unit(chosen: Any) -> None:
    from flashfw.serve import systemd

    if chosen.database and urlsplit(chosen.database).password:
        warning = output.paint("warning:", "yellow", sys.stderr)
        output.note(f"{warning} anybody on the machine can read this unit, and the password of --database in it")
        output.note("  better: leave it out of the URL, and keep it in ~/.pgpass of the unit's user")
    program = Path(sys.argv[0]).absolute()
    start = [str(program)] if program.name == "flashfw" else [sys.executable, "-m", "flashfw"]
    output.line(
        systemd.unit(
            [*start, "serve", *chosen.arguments()], data=chosen.data, port=chosen.port, stop_s=_stop_s(chosen) + 5.0
        ).rstrip()
    )


def _stop_s(chosen: Any) -> float:
    """How long a gateway may take to end: open calls have the grace, then workers."""
    return float(2 * chosen.grace_s + 15.0)


def _supervise(chosen: Any, *, as_json: bool) -> None:
    """Claim, check and bind everything before anything starts; then have gateways serve until a signal."""
    import anyio

    from flashfw.cluster.trouble import as_told
    from flashfw.serve import data

    output.note(f"{output.paint('flashfw', 'bold', sys.stderr)} {flashfw.__version__}  {chosen.data}")
    with ExitStack() as held:
        if chosen.certificate is not None:
            chosen.certificate.context(datetime.now(timezone.utc))
        lock = held.enter_context(data.claimed(chosen.data))
        _check_named(chosen)
        sock = held.enter_context(_listening(chosen))
        try:
            anyio.run(_run, chosen, sock, lock, as_json)
        except BaseException as error:
            told = as_told(error, chosen.data)
            if told is error:
                raise
            raise told from None


def _check_named(chosen: Any) -> None:
    """A database shared by servers has a schema per project and environment, so these must be known."""
    from flashfw.serve import data

    if chosen.database and not chosen.bound and not data.read(chosen.data).project:
        raise UsageError(
            "--database needs to know what this server is of: its tables are named by that",
            hint="add --as PROJECT/ENVIRONMENT",
        )
    if chosen.bound:
        data.bind(chosen.data, *chosen.bound)


def _listening(chosen: Any) -> socket.socket:
    """The socket that outlives gateways: systemd's, or one of our own. Connections wait in it from now on."""
    from flashfw.cluster.listening import binding
    from flashfw.serve import systemd

    sock = systemd.activated(chosen.variables) or binding.bind(chosen.host, chosen.port)
    sock.listen(binding.BACKLOG)
    return sock


async def _run(chosen: Any, sock: socket.socket, lock: Any, as_json: bool) -> None:
    import anyio

    from flashfw.cluster.listening.binding import url_of
    from flashfw.serve import data, systemd
    from flashfw.serve.launching import launcher
    from flashfw.serve.supervisor import Supervisor, Told

    url = url_of(sock, scheme=chosen.scheme)
    first = True

    def serving(fields: dict[str, Any]) -> None:
        nonlocal first
        data.publish(chosen.data, url)
        if first:
            first = False
            is_local = ipaddress.ip_address(sock.getsockname()[0]).is_loopback
            _ready(chosen, url, fields, is_local=is_local, as_json=as_json)

    def notify(text: str) -> None:
        systemd.notify(text, chosen.variables)

    supervisor = Supervisor(
        launcher(chosen, sock, lock),
        told=Told(line=_print, serving=serving, notify=notify),
        stop_s=_stop_s(chosen),
        shows_key=as_json or sys.stderr.isatty(),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_signals, supervisor)
        await supervisor.run()
        tasks.cancel_scope.cancel()


async def _signals(supervisor: Any) -> None:
    """SIGHUP restarts, unless it says that the terminal which this was started in is closed."""
    import anyio

    has_terminal = sys.stdin is not None and sys.stdin.isatty()
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for number in signals:
            if number == signal.SIGHUP and not (has_terminal and not sys.stdin.isatty()):
                _print("restarting")
                supervisor.restart()
                continue
            _print("stopping (again to stop at once)" if number == signal.SIGINT else "stopping")
            supervisor.stop()


def _ready(chosen: Any, url: str, fields: dict[str, Any], *, is_local: bool, as_json: bool) -> None:
    key = fields.get("key")
    if as_json:
        output.document({"url": url, "pid": os.getpid(), "key": key, "data": str(chosen.data)})
        sys.stdout.flush()
    _print(f"{output.paint('ready', 'green', sys.stderr)}  {output.paint(url, 'bold', sys.stderr)}  (Ctrl-C stops)")
    if key and not as_json:
        _print(f"  the first admin key, shown this once:  {key}")
        _print("  keep it where you ship from:  flashfw key save ENV")
    elif not fields.get("has_keys"):
        _print(f"  there is no key yet:  flashfw key create first --scope admin --data {chosen.data}")
    if chosen.certificate is None and not is_local:
        warning = output.paint("warning:", "yellow", sys.stderr)
        _print(f"  {warning} others can read what is sent, keys included: add --cert and --key")


def _answer(chosen: Any, gateway: str) -> int:
    """Be the process that answers."""
    import anyio

    from flashfw.serve.launching import Descriptors

    try:
        given = Descriptors.read(gateway)
        for descriptor in (given.channel, given.sock, given.lock):
            os.set_inheritable(descriptor, False)
    except (OSError, ValueError):
        raise UsageError("--gateway is what `flashfw serve` starts its own processes with") from None
    return anyio.run(_gateway, chosen, given, backend_options={"use_uvloop": sys.platform != "win32"})


async def _gateway(chosen: Any, given: Any) -> int:
    import anyio

    from flashfw.serve import server
    from flashfw.serve.channel import Channel

    stop = anyio.Event()
    channel = await Channel.over(socket.socket(fileno=given.channel))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_stop_on_signal, stop)
        code = await server.run(
            chosen, socket.socket(fileno=given.sock), channel, stop=stop, emit=_printer(quiet=chosen.quiet)
        )
        tasks.cancel_scope.cancel()
    return code


async def _stop_on_signal(stop: Any) -> None:
    import anyio

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            stop.set()


def _printer(*, quiet: bool) -> Any:
    from flashfw.cli.lines import Lines

    lines = Lines()
    left_out = DETAILS | CALLS if quiet else DETAILS

    def emit(event: Any) -> None:
        if event.name not in left_out:
            for line in lines.render(event):
                _print(line)

    return emit


def _print(line: str) -> None:
    """One line, for whoever still reads: the server outlives its terminal."""
    with suppress(OSError):
        output.note(line)
