"""One question to a server's administration, and its refusals as errors that say what to do."""

from __future__ import annotations

from typing import Any

import click
import httpx

from flashfw.client.client import Client
from flashfw.client.failures import decoded, error_of, refusal
from flashfw.errors import FlashfwError, TargetError, UsageError

Json = Any

url = click.option("--url", metavar="ADDRESS", help="A server's address instead of an environment.")


def ask(client: Client, method: str, path: str, **options: Json) -> Json:
    """What the server answers at `/_flashfw/<path>`; options as httpx has them.

    Raises:
        UsageError: it does not know what was named, or refuses a value.
        TargetError: it cannot be reached, refuses the key, or says no.
    """
    response = client.request(method, f"/_flashfw/{path}", **options)
    if not response.is_success:
        raise refused(client, path, response)
    return decoded(client.url, response)


def refused(client: Client, path: str, response: httpx.Response) -> FlashfwError:
    """The error that an answer of the administration stands for."""
    try:
        error = error_of(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        error = {}
    said, reason = str(error.get("message") or ""), error.get("reason")
    status = response.status_code
    if status in (400, 422) or status == 404 and reason == "unknown":
        return UsageError(said)
    if status == 404 or status == 405 or not error:
        what = path.partition("/")[0]
        return TargetError(
            f"{client.url} has no {what} to administer: it answered {status}",
            hint="it is a `flashfw dev`, no flashfw, or an older one",
        )
    if status == 409:
        return TargetError(said)
    return refusal(path, client.url, response)
