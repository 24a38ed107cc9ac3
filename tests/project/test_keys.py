"""Every key: what it takes, what it refuses, and that the documentation names it."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.manifest import Batch, Endpoint, Function, Retries, Schedule, Volume
from flashfw.project.compile import FIELDS
from flashfw.project.keys import KEYS, STEERING, requirement
from flashfw.project.values import Invalid

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"

GOOD: list[tuple[str, Any, Any]] = [
    ("gpu", "L40S", ("NVIDIA L40S",)),
    ("gpu", ["B200", ">=288GB"], ("NVIDIA B200", "NVIDIA B300 SXM6 AC")),
    ("gpu_count", 8, 8),
    ("cuda", "12.8", "12.8"),
    ("cpu", "cpu5c-8-16", "cpu5c-8-16"),
    ("memory", "8GB", 8 * 10**9),
    ("workers", 5, (0, 5)),
    ("workers", [1, 5], (1, 5)),
    ("workers", [2, 2], (2, 2)),
    ("idle_timeout", "90s", 90.0),
    ("concurrency", 10, 10),
    ("scaler", {"type": "request_count", "value": 3}, {"type": "request_count", "value": 3.0}),
    ("start_timeout", 90, 90.0),
    ("drain_timeout", 0, 0.0),
    ("max_queue", 1, 1),
    ("max_body", "1GiB", 2**30),
    ("strategy", "replace", "replace"),
    ("dependencies", ["torch>=2.4", "x[a] @ https://x.example/x.whl ; python_version>'3'"], None),
    ("system_dependencies", ["ffmpeg", "libstdc++6", "x=1.2~3"], ("ffmpeg", "libstdc++6", "x=1.2~3")),
    ("python", "3.12", "3.12"),
    ("preload", ["torch", "lib.models"], ("torch", "lib.models")),
    ("command", "node 'my server.js' $PORT", ("node", "my server.js", "$PORT")),
    ("command", ["sh", "-c", "exec x"], ("sh", "-c", "exec x")),
    ("ready", "/health?full=1", "/health?full=1"),
    ("image", "ghcr.io/a/b:1@sha256:0", "ghcr.io/a/b:1@sha256:0"),
    ("disk", "20GB", 20 * 10**9),
    ("registry", "my-registry", "my-registry"),
    ("datacenters", ["eu_ro_1", "US-CA-2"], ("EU-RO-1", "US-CA-2")),
    ("datacenters", "EU-RO-1", ("EU-RO-1",)),
    ("flashboot", False, False),
    ("env", {"A": "1", "_b": ""}, {"A": "1", "_b": ""}),
    ("secrets", ["HF_TOKEN"], {"HF_TOKEN": "HF_TOKEN"}),
    ("secrets", {"HF_TOKEN": "hf-read"}, {"HF_TOKEN": "hf-read"}),
    ("volume", {"name": "models"}, (Volume(name="models"),)),
    (
        "volume",
        [{"name": "a", "size": "10GB", "mount": "/a", "datacenter": "EU-RO-1"}, {"name": "b"}],
        (Volume(name="a", size_bytes=10**10, mount="/a", datacenter="EU-RO-1"), Volume(name="b")),
    ),
    ("include", ["prompts/**/*.md", "/data"], ("prompts/**/*.md", "/data")),
    ("timeout", "7d", 604_800.0),
    ("ttl", "10s", 10.0),
    ("result_ttl", "30d", 2_592_000.0),
    ("retries", 3, Retries(max=3)),
    ("retries", {"max": 1, "backoff": "2s", "on": "OSError"}, Retries(max=1, backoff_s=2.0, on=("OSError",))),
    ("batch", {"max_size": 8, "max_wait": "50ms"}, Batch(max_size=8, max_wait_s=0.05)),
    ("schedule", [{"cron": "0 6 * * 1-5"}], (Schedule(cron="0 6 * * 1-5"),)),
    (
        "schedule",
        [{"cron": "*/5 * * * *", "tz": "Europe/Prague", "input": {"n": [1]}, "overlap": True, "catch_up": True}],
        (Schedule(cron="*/5 * * * *", tz="Europe/Prague", input={"n": [1]}, overlap=True, catch_up=True),),
    ),
    ("public", True, True),
    ("marks", ["slow", "gpu"], ("slow", "gpu")),
]

BAD: list[tuple[str, Any, str]] = [
    ("gpu", "A100", "'gpu' must name one device"),
    ("gpu", 1, "'gpu' must be a device"),
    ("gpu_count", 0, "'gpu_count' must be a whole number of 1 or more, not 0"),
    ("cuda", "99", "'cuda' must be a CUDA version of the catalogue"),
    ("cpu", "big", "'cpu' must be a CPU type of the catalogue"),
    ("memory", "8", "'memory' must be a size"),
    ("workers", 0, "'workers' must be a number of workers of 1 or more, or [min, max]"),
    ("workers", [3, 1], "'workers' must be a number of workers"),
    ("workers", [0, 0], "'workers' must be a number of workers"),
    ("workers", [-1, 1], "'workers' must be a number of workers"),
    ("workers", [1], "'workers' must be a number of workers"),
    ("workers", "3", "'workers' must be a number of workers"),
    ("workers", [False, True], "'workers' must be a number of workers"),
    ("idle_timeout", "2h", "'idle_timeout' must be from 1s to 1h, not \"2h\""),
    ("idle_timeout", 0, "'idle_timeout' must be from 1s to 1h, not 0"),
    ("concurrency", 0, "'concurrency' must be a whole number of 1 or more"),
    ("scaler", {"type": "queue"}, '\'scaler.type\' must be "queue_delay" or "request_count", not "queue"'),
    ("scaler", {"value": 0}, "'scaler.value' must be a number above 0, not 0"),
    ("scaler", 4, "'scaler' must be a table, not 4"),
    ("start_timeout", "2d", "'start_timeout' must be from 1s to 24h, not \"2d\""),
    ("drain_timeout", "soon", "'drain_timeout' must be a duration"),
    ("max_queue", 0, "'max_queue' must be"),
    ("max_body", -1, "'max_body' must be a size"),
    ("strategy", "blue", '\'strategy\' must be "surge" or "replace", not "blue"'),
    ("dependencies", ["numpy", "torch=2"], "'dependencies[1]' must be a requirement"),
    ("dependencies", "torch", "'dependencies' must be a list, not \"torch\""),
    ("dependencies", [["torch"]], "'dependencies[0]' must be a requirement"),
    ("system_dependencies", ["-y"], "'system_dependencies[0]' must be a system package"),
    ("python", "3.9", "'python' must be \"3.10\" or"),
    ("python", 3.1, "'python' must be a string, not 3.1"),
    ("preload", ["lib/models.py"], "'preload[0]' must be a dotted name"),
    ("command", "", "'command' must be a command"),
    ("command", [], "'command' must be a command"),
    ("ready", "health", "'ready' must be a path"),
    ("image", "a b", "'image' must be the name of an image"),
    ("disk", "1MB", "'disk' must be 1GB or more"),
    ("registry", "", "'registry' must be a name of letters"),
    ("datacenters", ["EU-1"], "'datacenters[0]' must be a data center of the catalogue"),
    ("flashboot", "off", "'flashboot' must be true or false, not \"off\""),
    ("env", {"A": 8}, "'env.A' must be a string, not 8"),
    ("env", {"A-B": "x"}, "'env.A-B' must be the name of a variable"),
    ("env", ["A"], "'env' must be a table, not a list"),
    ("secrets", ["my-token"], "'secrets[0]' must be the name of a variable"),
    ("secrets", "TOKEN", "'secrets' must be a list of names or a table"),
    ("volume", {"size": "10GB"}, "'volume' must have \"name\""),
    ("volume", [{"name": "a", "sise": 1}], "unknown key 'volume[0].sise'"),
    ("volume", {"name": "A b"}, "'volume.name' must be a name"),
    ("volume", {"name": "a", "mount": "models"}, "'volume.mount' must be an absolute path"),
    ("include", ["../secrets/*"], "'include[0]' must be a pattern inside the project"),
    ("timeout", "1s", "'timeout' must be from 5s to 7d, not \"1s\""),
    ("timeout", "8d", "'timeout' must be from 5s to 7d, not \"8d\""),
    ("ttl", "1s", "'ttl' must be from 10s to 7d, not \"1s\""),
    ("result_ttl", "31d", "'result_ttl' must be from 10s to 30d, not \"31d\""),
    ("retries", -1, "'retries' must be a whole number from 0 to 100, not -1"),
    ("retries", {"backoff": "1s"}, "'retries' must have \"max\""),
    ("retries", {"max": 1, "on": ["not a name"]}, "'retries.on[0]' must be a dotted name"),
    ("batch", {"max_wait": "1s"}, "'batch' must have \"max_size\""),
    ("batch", {"max_size": 0}, "'batch.max_size' must be a whole number from 1 to 10,000, not 0"),
    ("schedule", {"cron": "* * * * *"}, "'schedule' must be a list, not a table"),
    ("schedule", [{"cron": "* * * *"}], "'schedule[0].cron' must be a cron line of five fields"),
    ("schedule", [{"cron": "61 * * * *"}], "'schedule[0].cron' must be a cron line whose fields are in range"),
    ("schedule", [{"cron": "R R * * *"}], "'schedule[0].cron' must be a cron line of five fields"),
    ("schedule", [{"cron": "0 0 30 2 *"}], "'schedule[0].cron' must be a cron line that some day fits, not \"0 0 30 2"),
    ("schedule", [{"cron": "* * * * *", "tz": "Mars/Base"}], "'schedule[0].tz' must be a time zone"),
    ("schedule", [{"cron": "* * * * *", "tz": "../../etc/passwd"}], "'schedule[0].tz' must be a time zone"),
    ("schedule", [{"tz": "UTC"}], "'schedule[0]' must have \"cron\""),
    ("schedule", [{"cron": "* * * * *", "input": float("nan")}], "'schedule[0].input' must be JSON"),
    ("public", 1, "'public' must be true or false, not 1"),
    ("marks", ["not slow"], "'marks[0]' must be a word"),
]


@pytest.mark.parametrize(("name", "value", "expected"), GOOD)
def test_taken(name: str, value: Any, expected: Any) -> None:
    assert (tuple(value) if expected is None else expected) == KEYS[name].read(value)


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        KEYS[name].read(value)

    assert caught.value.faults[0].text((name,)).startswith(message)


def test_every_key_is_taken_and_refused_above() -> None:
    assert KEYS.keys() == {name for name, *_ in GOOD} == {name for name, *_ in BAD}


def test_every_key_has_a_field_in_the_manifest() -> None:
    fields = {field.name for record in (Endpoint, Function) for field in dataclasses.fields(record)}

    for name in KEYS.keys() - {"workers"}:
        assert FIELDS.get(name, name) in fields


@pytest.mark.parametrize("name", [*KEYS, *STEERING])
def test_every_key_is_documented_with_its_type_and_default(name: str) -> None:
    text = DOCS.read_text(encoding="utf-8").partition("## What a target honours")[0]
    rows = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]

    assert len(rows) == 1
    if name in KEYS:
        assert f"| {KEYS[name].type} | {KEYS[name].default} |" in rows[0]


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(KEYS)), JSONISH)
def test_any_value_is_read_or_refused_and_nothing_else(name: str, value: Any) -> None:
    with contextlib.suppress(Invalid):
        KEYS[name].read(value)


@given(st.from_regex(r"\A[a-z][a-z0-9._-]{0,4}((==|>=|~=|<)[0-9.]{1,5}(,(!=|<)[0-9.]{1,3})?)?\Z"))
def test_the_short_way_to_read_a_requirement_agrees_with_the_long_one(text: str) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(text)
        valid = True
    except InvalidRequirement:
        valid = False
    try:
        requirement(text)
    except Invalid:
        assert not valid
    else:
        assert valid
