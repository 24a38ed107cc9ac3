"""Markers for `Annotated[...]` that say which part of an HTTP request a parameter is read from.

```python
def get(q: Annotated[list[str], Query("tag")], token: Annotated[str, Header("x-token")]) -> dict: ...
```

Limits such as `ge=1` or `max_length=8` are pydantic's: `Annotated[int, Field(ge=1), Query()]`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """From the query string; `alias` is the name on the wire where it differs from the parameter's."""

    alias: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """From a header; without `alias` the parameter's name with `-` for `_`. Case never matters."""

    alias: str = ""


@dataclass(frozen=True, slots=True)
class Cookie:
    """From a cookie of that name."""

    alias: str = ""


@dataclass(frozen=True, slots=True)
class Form:
    """From a field of a form body (`application/x-www-form-urlencoded` or `multipart/form-data`)."""

    alias: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """From the JSON body: the whole of it if this is the only body parameter and `embed` is false, else by name."""

    embed: bool = False


Marker = Query | Header | Cookie | Form | Body
MARKERS = (Query, Header, Cookie, Form, Body)
