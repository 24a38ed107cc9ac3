"""Every key of `endpoint.toml`: its scope, how its value is read, and what the documentation says of it.

A new setting is one row here, one field of the manifest, one test.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import lru_cache
from typing import Any, Literal

from flashfw.manifest import Batch, Retries, Schedule, Volume
from flashfw.project import hardware
from flashfw.project.values import (
    Fault,
    Invalid,
    Read,
    Record,
    arguments,
    boolean,
    choice,
    duration,
    fail,
    integer,
    list_of,
    matching,
    one_or_more,
    positive,
    shown,
    size,
    table_of,
    text,
)

Scope = Literal["endpoint", "function"]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
JOB_KEYS = frozenset({"ttl", "result_ttl", "retries", "batch", "schedule"})
"""Function keys that mean nothing for HTTP endpoints and mounted applications."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key: `read` turns a complete value into what the manifest holds.

    `table` reads the table form, of which one file may give a part; `lists` tells that `"..."` may
    stand first; a `boolean` key is the only one for which `false` is a value and no unsetting.
    """

    name: str
    scope: Scope
    read: Read
    type: str
    default: str
    table: Record | None = None
    lists: bool = False
    boolean: bool = False

    def check(self, value: Any) -> None:
        """Looks at the value of one file, which need not be complete.

        Raises:
            Invalid: all that is wrong with it.
        """
        if self.table is not None and isinstance(value, dict):
            self.table.partial(value)
        else:
            self.read(value)


_variable = matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of a variable, letters, digits and _")
_word = matching(r"[A-Za-z0-9][A-Za-z0-9._-]*", "a name of letters, digits, '.', '_' and '-'")
_dotted_name = matching(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", 'a dotted name such as "torch.nn"')
_package = matching(r"[A-Za-z0-9][A-Za-z0-9+._:=~-]*", 'a system package such as "ffmpeg"')
_mount = matching(r"/\S*", 'an absolute path such as "/models"')
_mark = matching(r"[A-Za-z_]\w*", "a word of letters, digits and _")


def python_version(value: Any) -> str:
    """A reader of a Python version that flashfw runs on."""
    if isinstance(value, float):
        raise fail("a string", value, hint=f'write "{value}" in quotes: as a number, 3.10 is 3.1')
    return str(choice(*PYTHONS)(value))


def requirement(value: Any) -> str:
    """A reader of one requirement as pip and uv take it, kept as written; `./libs/mylib` is a part of the project."""
    if not isinstance(value, str):
        raise fail('a requirement such as "torch>=2.4"', value)
    if value.startswith(("./", "../")) and value.isprintable():
        return value.strip()
    return value if _PLAIN_REQUIREMENT.fullmatch(value) else _requirement(value)


# Nearly every requirement has this form, and importing `packaging` costs a tenth of a second.
_PLAIN_REQUIREMENT = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
    r"(?:(?:==|>=|<=|!=|~=|<|>)[0-9]+(?:\.[0-9]+)+(?:,(?:==|>=|<=|!=|~=|<|>)[0-9]+(?:\.[0-9]+)+)*)?"
)


@lru_cache(maxsize=4096)
def _requirement(value: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(value)
    except InvalidRequirement as error:
        reason = str(error).partition("\n")[0]
        raise Invalid(Fault(f'must be a requirement such as "torch>=2.4", not {shown(value)}: {reason}')) from error
    return value.strip()


def _workers(value: Any) -> tuple[int, int]:
    what = "a number of workers of 1 or more, or [min, max]"
    if not isinstance(value, list):
        value = [0, value]
    if len(value) != 2 or any(isinstance(n, bool) or not isinstance(n, int) for n in value):
        raise Invalid(Fault(f"must be {what}"))
    least, most = value
    if least < 0 or most < 1 or least > most:
        raise Invalid(Fault(f"must be {what} with 0 <= min <= max and max >= 1, not [{least}, {most}]"))
    return least, most


def _glob(value: Any) -> str:
    pattern = str(text(value))
    parts = pattern.split("/")
    if ".." in parts or "\\" in pattern or set(parts) <= {"", "."} or not pattern.isprintable():
        raise fail('a pattern inside the project such as "prompts/*.md"', value)
    if any("**" in part and part != "**" for part in parts):
        raise fail('a pattern in which "**" stands alone between slashes', value)
    return pattern


def _json(value: Any) -> Any:
    """A value that survives JSON; TOML also has dates and numbers that are none."""
    if isinstance(value, dict):
        return {name: _json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, datetime | date | time):
        raise fail("JSON", value, hint="put the date in quotes")
    if isinstance(value, float) and value - value != 0:
        raise fail("JSON", value)
    return value


def _cron(value: Any) -> str:
    from croniter import croniter

    if not isinstance(value, str) or _AT_RANDOM.search(value) or not _is_five(value):
        raise fail('a cron line of five fields such as "0 6 * * 1-5"', value)
    if not croniter.is_valid(value):
        hint = "minute 0-59, hour 0-23, day 1-31, month 1-12, weekday 0-6"
        raise fail("a cron line whose fields are in range", value, hint=hint)
    if not _ticks(value):
        raise fail("a cron line that some day fits", value, hint="it would never start a job: no year has such a day")
    return value


def _is_five(cron: str) -> bool:
    return len(cron.split()) == 5


_AT_RANDOM = re.compile(r"(^|[\s,])[HRhr]($|[\s,(/])")
"""croniter's own: a moment drawn by chance, another one at each look."""


def _ticks(cron: str) -> bool:
    """Whether a line names any moment at all; "0 0 30 2 *" does not."""
    from croniter import CroniterBadDateError, croniter

    try:
        croniter(cron, datetime(2024, 1, 1), max_years_between_matches=50).get_next(datetime)
    except CroniterBadDateError:
        return False
    return True


def _zone(value: Any) -> str:
    name = str(text(value))
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise fail('a time zone such as "Europe/Prague"', value) from None
    return name


def _secrets(value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return dict(table_of(_variable, _word)(value))
    return {name: name for name in list_of(_variable, what="a list of names or a table")(value)}


def _attempts(value: Any) -> Retries:
    return Retries(max=integer(0, 100)(value))


_RETRIES = Record(
    {"max": integer(0, 100), "backoff": duration("0s", "1h"), "on": one_or_more(_dotted_name)},
    make=lambda given: Retries(
        max=given["max"], backoff_s=given.get("backoff", Retries().backoff_s), on=given.get("on", ())
    ),
    required=("max",),
)
_BATCH = Record(
    {"max_size": integer(1, 10_000), "max_wait": duration("0s", "1m")},
    make=lambda given: Batch(max_size=given["max_size"], max_wait_s=given.get("max_wait", 0.02)),
    required=("max_size",),
)
_SCHEDULE = Record(
    {"cron": _cron, "tz": _zone, "input": _json, "overlap": boolean, "catch_up": boolean},
    make=lambda given: Schedule(**given),
    required=("cron",),
)
_SCALER = Record({"type": choice("queue_delay", "request_count"), "value": positive})
_VOLUME = Record(
    {
        "name": matching(r"[a-z0-9][a-z0-9_-]*", "a name of small letters, digits, '_' and '-'"),
        "size": size("1GB", "4096GB"),
        "mount": _mount,
        "datacenter": hardware.datacenter,
    },
    make=lambda given: Volume(
        name=given["name"],
        size_bytes=given.get("size"),
        mount=given.get("mount"),
        datacenter=given.get("datacenter"),
    ),
    required=("name",),
)


def _text_of_variable(value: Any) -> str:
    if isinstance(value, bool | int | float):
        raise fail("a string", value, hint=f'write it in quotes: "{shown(value)}"')
    if not isinstance(value, str) or "\0" in value:
        raise fail("a string without null bytes", value)
    return value


_ENV = table_of(_variable, _text_of_variable)


def _retries(value: Any) -> Any:
    return _RETRIES(value) if isinstance(value, dict) else _attempts(value)


_ENDPOINT_KEYS = (
    Key("gpu", "endpoint", hardware.gpus, "string or list", "none: a CPU endpoint", lists=True),
    Key("gpu_count", "endpoint", integer(1), "1 or more", "1"),
    Key("cuda", "endpoint", hardware.cuda, "version", "any"),
    Key("cpu", "endpoint", hardware.cpu, "CPU type", hardware.DEFAULT_CPU),
    Key("memory", "endpoint", size("64MB"), "size, 64MB or more", "no limit"),
    Key("workers", "endpoint", _workers, "n or [min, max]", "[0, 3]"),
    Key("idle_timeout", "endpoint", duration("1s", "1h"), "duration, 1s to 1h", "60s"),
    Key("concurrency", "endpoint", integer(1), "1 or more", "1; HTTP 100"),
    Key("scaler", "endpoint", _SCALER, "{type, value}", "see below", table=_SCALER),
    Key("start_timeout", "endpoint", duration("1s", "24h"), "duration, 1s to 24h", "10m"),
    Key("drain_timeout", "endpoint", duration("0s", "24h"), "duration, 0s to 24h", "30s"),
    Key("max_queue", "endpoint", integer(1), "1 or more", "10,000"),
    Key("max_body", "endpoint", size("1B"), "size", "10MB; HTTP none"),
    Key("strategy", "endpoint", choice("surge", "replace"), "surge or replace", "surge"),
    Key("dependencies", "endpoint", list_of(requirement), "list of requirements", "[]", lists=True),
    Key("system_dependencies", "endpoint", list_of(_package), "list of packages", "[]", lists=True),
    Key("python", "endpoint", python_version, "3.10 to 3.14", "the project's"),
    Key("preload", "endpoint", list_of(_dotted_name), "list of modules", "[]", lists=True),
    Key("command", "endpoint", arguments, "string or list", "none"),
    Key("ready", "endpoint", matching(r"/\S*", 'a path such as "/health"'), "path", "/"),
    Key("image", "endpoint", matching(r"\S+", "the name of an image"), "string", "the target's"),
    Key("disk", "endpoint", size("1GB"), "size, 1GB or more", "the target's"),
    Key("registry", "endpoint", _word, "string", "none"),
    Key("datacenters", "endpoint", one_or_more(hardware.datacenter), "string or list", "any", lists=True),
    Key("flashboot", "endpoint", boolean, "true or false", "true", boolean=True),
    Key("env", "endpoint", _ENV, "table of strings", "{}"),
    Key("secrets", "endpoint", _secrets, "list or table", "[]", lists=True),
    Key("volume", "endpoint", one_or_more(_VOLUME), "table or list of tables", "none", table=_VOLUME, lists=True),
    Key("include", "endpoint", one_or_more(_glob), "list of patterns", "[]", lists=True),
)
_FUNCTION_KEYS = (
    Key("timeout", "function", duration("5s", "7d"), "duration, 5s to 7d", "10m"),
    Key("ttl", "function", duration("10s", "7d"), "duration, 10s to 7d", "24h"),
    Key("result_ttl", "function", duration("10s", "30d"), "duration, 10s to 30d", "24h"),
    Key("retries", "function", _retries, "n or {max, backoff, on}", "0", table=_RETRIES),
    Key("batch", "function", _BATCH, "{max_size, max_wait}", "none", table=_BATCH),
    Key("schedule", "function", list_of(_SCHEDULE), "list of tables", "[]", lists=True),
    Key("public", "function", boolean, "true or false", "false", boolean=True),
    Key("marks", "function", list_of(_mark), "list of words", "[]", lists=True),
)
KEYS: Mapping[str, Key] = {key.name: key for key in (*_ENDPOINT_KEYS, *_FUNCTION_KEYS)}
"""All keys of `endpoint.toml` but the three that steer the cascade: `inherit`, `on`, `function`."""

FUNCTION_KEYS = frozenset(key.name for key in _FUNCTION_KEYS)
STEERING = ("inherit", "on", "function")
