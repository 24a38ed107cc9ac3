"""Node ids of a server's functions: their paths, those of a document, and what to say of one that is none of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from flashfw.client.failures import UnknownFunctionError

Json = Any

_ID = re.compile(r"\w+(/\w+)*(::\w+)?")


def route(function: str) -> str:
    """The URL path of a job function.

    >>> route("gpu_a100::upscale")
    '/gpu_a100/upscale'

    Raises:
        UnknownFunctionError: the text can be no id, and might lead to something else of the server.
    """
    if _ID.fullmatch(function) is None or function.startswith("v2/"):
        raise UnknownFunctionError(
            f"{function!r} is no id of a function", hint="ids are such as gpu/upscale, gpu::method"
        )
    return "/" + quote(function.replace("::", "/"))


def ids(document: Mapping[str, Json]) -> list[str]:
    """The node ids of an OpenAPI document: jobs, HTTP functions and mounts."""
    marks = (
        item[key] if key == "x-flashfw" else item[key].get("x-flashfw")
        for item in document.get("paths", {}).values()
        for key in item
        if isinstance(item[key], dict)
    )
    return [mark["id"] for mark in marks if mark]


def unknown(function: str, known: list[str], url: str) -> UnknownFunctionError:
    """The error for an id that is none of `known`."""
    close = difflib.get_close_matches(function, known, n=1)
    more = f" and {len(known) - 8} more; `flashfw collect` lists them" if len(known) > 8 else ""
    has = f"it has {', '.join(known[:8])}{more}" if known else "it has none"
    hint = f"did you mean {close[0]!r}?" if close else has
    return UnknownFunctionError(f"{url} has no function {function!r}", hint=hint)
