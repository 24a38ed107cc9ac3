"""The `flashfw` command: finds the verb, runs it, and turns every way of failing into a message and an exit code.

How to write a verb: one module `flashfw/cli/<verb>.py` and one line in `VERBS`. The module holds

    @click.command()
    @options.json
    def command(as_json: bool) -> int | None:

or, for a verb with verbs of its own (`jobs list`), a `click.Group` under that name. Its docstring is its help, the
first line the one in `VERBS`. The module is imported only when its verb is invoked, so it may import what it likes. It
- prints its result to stdout, and with `--json` exactly one document through `output.document`;
- raises `FlashfwError` for what goes wrong: it is printed here, and its `exit` is the exit code;
- returns an `Exit` where the code is no error (`return Exit.PROBLEMS` after printing), None for 0.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

import flashfw
from flashfw.cli import output
from flashfw.errors import Exit, FlashfwError, KeyRefusedError, UsageError

VERBS = {
    "new": ("flashfw.cli.new", "Make a project from the template, ready to run."),
    "collect": ("flashfw.cli.collect", "Show the static tree: endpoints, functions, URLs, files, lines."),
    "check": ("flashfw.cli.check", "Show every problem of the project at once."),
    "config": ("flashfw.cli.config", "Show each effective value of an endpoint with file and line."),
    "dev": ("flashfw.cli.dev", "Serve the project on this machine and reload as files change."),
    "call": ("flashfw.cli.call", "Call one function; input as JSON, @file or stdin."),
    "jobs": ("flashfw.cli.jobs", "List, show, cancel and retry jobs."),
    "why": ("flashfw.cli.why", "Tell why a job waited, failed, was slow or still waits."),
    "status": ("flashfw.cli.status", "Show workers, queues and the autoscaler's reasons."),
    "lock": ("flashfw.cli.lock", "Pin the packages of every endpoint in flashfw.lock."),
    "build": ("flashfw.cli.build", "Make the release of a project: packages, source and manifest."),
    "ship": ("flashfw.cli.ship", "Build, say what would change, and make it so."),
    "rollback": ("flashfw.cli.rollback", "Serve a former release again."),
    "remove": ("flashfw.cli.remove", "Take everything off an environment's server."),
    "env": ("flashfw.cli.env", "List and show environments."),
    "logs": ("flashfw.cli.logs", "Show what the workers of an environment wrote."),
    "secret": ("flashfw.cli.secret", "Set, list and remove the secrets of an environment."),
    "key": ("flashfw.cli.key", "Make, list, revoke and keep keys of a server."),
    "serve": ("flashfw.cli.serve", "Serve releases that `flashfw ship` brings to this machine."),
}
"""Each verb's module and its line of help, in the order of the help text."""

INTERRUPTED = 130
"""What shells report for a command that Ctrl-C ended; `dev` and `serve` handle signals themselves and end with 0."""


class Verbs(click.Group):
    """The verbs of `VERBS`: listed from the table, imported only when one is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in VERBS:
            ctx.fail(_unknown(cmd_name))
        found: click.Command = importlib.import_module(VERBS[cmd_name][0]).command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


def _unknown(verb: str) -> str:
    close = difflib.get_close_matches(verb, VERBS, n=1)
    return f"No such verb {verb!r}." + (f" Did you mean {close[0]!r}?" if close else "")


def _set_verbose(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.obj["verbose"] = value  # here and not in the body below, which runs after the verb's module was imported


@click.group(cls=Verbs, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(flashfw.__version__, message="flashfw %(version)s")
@click.option(
    "--verbose", "-v", is_flag=True, expose_value=False, callback=_set_verbose, help="Show tracebacks of errors."
)
@click.pass_context
def app(ctx: click.Context) -> int:
    """A folder of Python files becomes autoscaled GPU and CPU endpoints."""
    if ctx.invoked_subcommand is None:
        output.note(ctx.get_help())
        return Exit.USAGE
    return Exit.DONE


def _check_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UsageError("the folder that you are in is gone", hint="cd to one that exists") from None


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; nothing but `SystemExit` for a closed pipe gets out.

    >>> run(["--version"])  # doctest: +SKIP
    flashfw 0.1.0
    0
    """
    state = {"verbose": False}
    as_json = "--json" in arguments
    try:
        _check_folder()
        result = app.main(list(arguments), "flashfw", standalone_mode=False, obj=state)
        return result if isinstance(result, int) else Exit.DONE
    except FlashfwError as error:
        if state["verbose"]:
            output.note(traceback.format_exc())
        output.failure(error, as_json=as_json)
        if isinstance(error, KeyRefusedError):
            _tell_whose_key()
        return error.exit
    except click.ClickException as error:
        error.show()
        if isinstance(error, click.NoSuchOption) and error.option_name == "--env" and _takes_environment(error.ctx):
            output.note("  this verb takes the environment without --env")
        if as_json:
            output.error_document(error.format_message(), exit=Exit.USAGE)
        return Exit.USAGE
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:  # the edge: a defect of ours becomes a message and a code
        output.internal(error, arguments, traceback.format_exc() if state["verbose"] else "")
        if as_json:
            output.error_document(f"{type(error).__name__}: {error}", exit=Exit.INTERNAL)
        return Exit.INTERNAL


def _tell_whose_key() -> None:
    """Keeping another key helps nobody whose variable goes before it."""
    from flashfw.cli.server import KEY

    if os.environ.get(KEY):
        output.note(f"  the key was that of {KEY}, which goes before one that is kept: mend or unset it")


def _takes_environment(context: click.Context | None) -> bool:
    """Whether a verb has the environment as its argument."""
    return context is not None and any("ENV" in (argument.metavar or "") for argument in _arguments(context.command))


def _arguments(command: click.Command) -> list[click.Argument]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Argument)]


def main() -> None:
    """The console script."""
    output.prepare()
    sys.exit(run(sys.argv[1:]))
