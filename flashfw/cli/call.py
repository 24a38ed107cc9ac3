"""`flashfw call`: one call of a function, job or HTTP."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import click
import httpx

from flashfw.cli import inputs, options, output, server
from flashfw.cli.inputs import Given
from flashfw.client.client import TERMINAL, Client, JobHandle
from flashfw.client.failures import CallFailedError, error_of
from flashfw.client.files import is_reference
from flashfw.client.functions import unknown
from flashfw.client.http_call import Operation, Prepared, is_raw, operations, prepare, prepare_raw
from flashfw.client.options import CallOptions
from flashfw.client.sse import Event
from flashfw.errors import JobFailedError, UsageError


@click.command()
@click.argument("function", metavar="ID")
@click.argument("input", required=False)
@click.option("--spawn", is_flag=True, help="Print the job's id and do not wait.")
@click.option("--stream", is_flag=True, help="Print each item as it comes, progress on stderr.")
@click.option("--file", "paths", multiple=True, metavar="NAME=PATH", help="A file for a parameter; several times.")
@click.option("--output", "-o", "to", type=click.Path(), help="Where to save a file that it answers with.")
@options.asked
@options.server
@options.json
def command(
    function: str,
    *,
    input: str | None,
    spawn: bool,
    stream: bool,
    paths: tuple[str, ...],
    to: str | None,
    asked: CallOptions,
    where: server.Server,
    as_json: bool,
) -> None:
    """Call one function; input as JSON, @file or stdin.

    ID is the function as `flashfw collect` shows it. INPUT is JSON, @file, or - for standard input. The output is
    printed as JSON on stdout.
    """
    if to is not None and (spawn or stream):
        raise UsageError("--output waits for the whole answer: give it without --spawn and --stream")
    if spawn and stream:
        raise UsageError("--spawn does not wait and --stream does: give one of them")
    files = inputs.files(paths)
    given = inputs.read("{}" if files and input is None else input, sys.stdin.buffer)
    # A typing mistake is told before anything is sent; what a file holds depends on who takes it.
    value = inputs.parse(given) if given.is_text else None
    with where.client() as client:
        operation = _find(client, function)
        if operation.kind == "http":
            if asked:
                raise UsageError(f"{operation.id} is HTTP: {_option(next(iter(asked)))} is for jobs")
            if files or to:
                raise UsageError(f"{operation.id} is HTTP: --file and --output are for jobs", hint="call it with curl")
            _http(client, operation, given, spawn=spawn, stream=stream, as_json=as_json)
            return
        value = value if given.is_text else inputs.parse(given)
        try:
            if files:
                asked = {**asked, "files": files}
            if to is not None:
                _save(client, client.call(function, value, **asked), to)
            else:
                _job(client, function, value, asked, spawn=spawn, stream=stream, as_json=as_json)
        except CallFailedError as error:
            if error.traceback and not error.is_refusal:
                output.note(output.printable(error.traceback.rstrip()))
            raise


def _find(client: Client, function: str) -> Operation:
    known = operations(client.openapi())
    if function not in known:
        raise unknown(function, list(known), client.url)
    operation = known[function]
    if operation.kind == "app":
        raise UsageError(f"{function} is a mounted application, which has its own URLs", hint="call it with curl")
    if operation.kind == "websocket":
        raise UsageError(f"{function} is a WebSocket, which is not one call")
    return operation


def _option(name: str) -> str:
    return "--" + name.removesuffix("_s").replace("_", "-")


def _save(client: Client, result: Any, to: str) -> None:
    if not is_reference(result):
        output.document(result)
        raise UsageError("--output is for a file, and the answer is none")
    output.note(f"saved {client.download(result, to)}")


def _job(
    client: Client,
    function: str,
    value: Any,
    asked: CallOptions,
    *,
    spawn: bool,
    stream: bool,
    as_json: bool,
) -> None:
    if spawn:
        job = client.spawn(function, value, **asked)
        if as_json:
            output.document({"id": job.id, "function": function})
        else:
            output.line(job.id)
    elif stream:
        _follow(client.spawn(function, value, **asked), as_json=as_json)
    else:
        output.document(client.call(function, value, **asked))


def _follow(job: JobHandle, *, as_json: bool) -> None:
    """Items to stdout, one per line, and the rest of the story to stderr; with `--json` the output alone."""
    items: list[Any] = []
    for event in job.events():
        if event.name in TERMINAL:
            result = job.outcome(event)
            if as_json:
                output.document(result)
            elif result != items or not items:
                _item(result)
        elif event.name == "chunk" and not as_json:
            items.append(event.data["output"])
            _item(event.data["output"])
        else:
            items = [] if event.name == "restart" else items
            output.note(output.paint(_told(event), "dim", sys.stderr))


def _item(value: Any) -> None:
    output.line(output.json_text(value))
    sys.stdout.flush()


def _told(event: Event) -> str:
    """One line for an event beside the items."""
    data = event.data if isinstance(event.data, dict) else {"value": event.data}
    if event.name in ("progress", "chunk"):
        value = data.get("value", data.get("output"))
        return f"{event.name}: {output.printable(json.dumps(value, ensure_ascii=False))}"
    told = ", ".join(f"{name} {value}" for name, value in data.items() if value not in (None, ""))
    return output.printable(f"{event.name}: {told}" if told else event.name)


def _http(client: Client, operation: Operation, given: Given, *, spawn: bool, stream: bool, as_json: bool) -> None:
    if spawn:
        raise UsageError(f"{operation.id} is HTTP: --spawn is for jobs")
    if is_raw(operation) and not given.is_text:
        request = prepare_raw(operation, given.content)
    else:
        request = prepare(operation, inputs.parse(given))
    with client.streaming(request.method, request.path, **_options(request)) as response:
        if response.is_error:
            response.read()
            raise JobFailedError(_refused(operation, response))
        _answer(response, stream=stream, as_json=as_json)


def _options(request: Prepared) -> dict[str, Any]:
    body: dict[str, Any] = {"content": request.body, "data": request.form}
    if request.is_multipart and request.form:
        # A field of a multipart form is to httpx a file without a name.
        fields = [(name, item) for name, given in request.form.items() for item in _listed(given)]
        body = {"files": [(name, (None, str(item))) for name, item in fields]}
    return {"params": list(request.query), "headers": dict(request.headers), **body}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _refused(operation: Operation, response: httpx.Response) -> str:
    said = response.text.strip()[:500]
    try:
        body = response.json()
        said = error_of(body["error"]).get("message") or said
    except (ValueError, KeyError, TypeError):
        pass
    return f"{operation.id} answered {response.status_code} {response.reason_phrase}" + (f": {said}" if said else "")


def _answer(response: httpx.Response, *, stream: bool, as_json: bool) -> None:
    """JSON as JSON, anything else byte for byte as it comes; with `--json` as a string, in base64 if it is no text."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    if kind == "application/json" and not stream:
        response.read()
        output.document(response.json())
    elif as_json:
        content = response.read()
        try:
            output.document(content.decode() if content else None)
        except UnicodeDecodeError:
            output.document(base64.b64encode(content).decode())
    else:
        for piece in response.iter_bytes():
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        if kind.startswith("text/") and sys.stdout.isatty():
            output.line()
