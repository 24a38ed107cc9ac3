"""The `flashfw` command: finds the verb, runs it, and turns every way of failing into a message and an exit code.

How to write a verb: one module `flashfw/cli/<verb>.py` and one line in `VERBS`. The module holds

    def command(..., json: Json = False) -> int | None:

a plain function with typer annotations (`Annotated[str, typer.Argument(...)]`); a verb with verbs of
its own (`jobs list`) has a `typer.Typer` under that name instead. The module is imported only when
its verb is invoked, so it may import what it likes. It
- prints its result to stdout, and with `--json` exactly one document through `output.document`;
- raises `FlashfwError` for what goes wrong: it is printed here, and its `exit` is the exit code;
- returns an `Exit` where the code is no error (`return Exit.PROBLEMS` after printing), None for 0.
"""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core
import typer.main

import flashfw
from flashfw.cli import output
from flashfw.errors import Exit, FlashfwError

VERBS = {
    "new": ("flashfw.cli.new", "Make a project from the template, ready to run."),
    "collect": ("flashfw.cli.collect", "Show the static tree: endpoints, functions, URLs, files, lines."),
    "check": ("flashfw.cli.check", "Show every problem of the project at once."),
    "config": ("flashfw.cli.config", "Show each effective value of an endpoint with file and line."),
    "dev": ("flashfw.cli.dev", "Serve the project on this machine and reload as files change."),
    "call": ("flashfw.cli.call", "Call one function; input as JSON, @file or stdin."),
}
"""Each verb's module and its line of help, in the order of the help text."""

INTERRUPTED = 130
"""What shells report for a command that Ctrl-C ended; `dev` and `serve` handle signals themselves and end with 0."""

# typer ships click inside itself since 0.2x and depended on it before: its own public class leads to both.
_ClickError: Any = typer.BadParameter.__mro__[2]


class Verbs(typer.core.TyperGroup):
    """The verbs of `VERBS`: listed from the table, imported only when one is invoked."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _load(cmd_name) if cmd_name in VERBS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            ctx.fail(_unknown(args[0]))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


def _load(verb: str) -> Any:
    module, text = VERBS[verb]
    command = importlib.import_module(module).command
    if isinstance(command, typer.Typer):
        return typer.main.get_command(command)
    single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    single.command(verb, help=text, context_settings=_SETTINGS)(command)
    return typer.main.get_command(single)


def _unknown(verb: str) -> str:
    close = difflib.get_close_matches(verb, VERBS, n=1)
    return f"No such verb {verb!r}." + (f" Did you mean {close[0]!r}?" if close else "")


_SETTINGS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    cls=Verbs,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
    invoke_without_command=True,
)


def _set_verbose(ctx: typer.Context, value: bool) -> bool:
    ctx.obj["verbose"] = value  # here and not in the body below, which runs after the verb's module was imported
    return value


@app.callback()
def _flashfw(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", callback=_set_verbose, help="Show tracebacks of errors.")
    ] = False,
) -> int:
    """A folder of Python files becomes autoscaled GPU and CPU endpoints."""
    if version:
        output.line(f"flashfw {flashfw.__version__}")
        raise typer.Exit(Exit.DONE)
    if ctx.invoked_subcommand is None:
        output.note(ctx.get_help())
        raise typer.Exit(Exit.USAGE)
    return Exit.DONE


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; nothing but `SystemExit` for a closed pipe gets out.

    >>> run(["--version"])  # doctest: +SKIP
    flashfw 0.1.0
    0
    """
    state = {"verbose": False}
    as_json = "--json" in arguments
    try:
        result = typer.main.get_command(app).main(list(arguments), "flashfw", standalone_mode=False, obj=state)
        return result if isinstance(result, int) else Exit.DONE
    except FlashfwError as error:
        if state["verbose"]:
            output.note(traceback.format_exc())
        output.failure(error, as_json=as_json)
        return error.exit
    except _ClickError as error:
        error.show()
        return Exit.USAGE
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:  # the edge: a defect of ours becomes a message and a code
        output.internal(error, arguments, traceback.format_exc() if state["verbose"] else "")
        return Exit.INTERNAL


def main() -> None:
    """The console script."""
    output.prepare()
    sys.exit(run(sys.argv[1:]))
