"""The manifest as JSON and back: nothing is lost, and nothing damaged gets in."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashfw.errors import ManifestError
from flashfw.manifest import (
    VERSION,
    Batch,
    Endpoint,
    Function,
    Manifest,
    Retries,
    Scaler,
    Schedule,
    Source,
    Variable,
    Volume,
    decode,
    dumps,
    encode,
    loads,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SECONDS = st.floats(0, 1e9)
COUNT = st.integers(0, 10**12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def few(item: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(item, max_size=2).map(tuple)


def optional(item: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | item


KINDS = st.sampled_from(["job", "http", "app"])
RETRIES = st.builds(Retries, max=COUNT, backoff_s=SECONDS, on=few(TEXT))
BATCH = st.builds(Batch, max_size=COUNT, max_wait_s=SECONDS)
SCHEDULE = st.builds(Schedule, cron=TEXT, tz=TEXT, input=JSON, overlap=st.booleans(), catch_up=st.booleans())
FUNCTION = st.builds(
    Function,
    id=TEXT,
    kind=KINDS,
    module=TEXT,
    attribute=TEXT,
    file=TEXT,
    line=COUNT,
    route=TEXT,
    method=TEXT,
    timeout_s=SECONDS,
    ttl_s=SECONDS,
    result_ttl_s=SECONDS,
    retries=RETRIES,
    batch=optional(BATCH),
    schedule=few(SCHEDULE),
    public=st.booleans(),
    marks=few(TEXT),
)
SCALER = st.builds(Scaler, type=st.sampled_from(["queue_delay", "request_count"]), value=SECONDS)
VOLUME = st.builds(Volume, name=TEXT, size_bytes=optional(COUNT), mount=optional(TEXT), datacenter=optional(TEXT))
VARIABLE = st.builds(Variable, name=TEXT, value=TEXT)
SOURCE = st.builds(Source, path=TEXT, sha256=TEXT)
ENDPOINT = st.builds(
    Endpoint,
    id=TEXT,
    kind=KINDS,
    directory=TEXT,
    functions=few(FUNCTION),
    gpu=few(TEXT),
    gpu_count=COUNT,
    cuda=optional(TEXT),
    cpu=optional(TEXT),
    memory_bytes=optional(COUNT),
    workers_min=COUNT,
    workers_max=COUNT,
    idle_timeout_s=SECONDS,
    concurrency=COUNT,
    scaler=SCALER,
    max_body_bytes=optional(COUNT),
    strategy=st.sampled_from(["surge", "replace"]),
    dependencies=few(TEXT),
    python=TEXT,
    image=optional(TEXT),
    flashboot=st.booleans(),
    env=few(VARIABLE),
    secrets=few(VARIABLE),
    volumes=few(VOLUME),
    include=few(TEXT),
    sources=few(SOURCE),
    fingerprint=TEXT,
)
MANIFEST = st.builds(Manifest, project=TEXT, environment=TEXT, endpoints=few(ENDPOINT))
RECORDS = [Retries, Batch, Schedule, Function, Scaler, Volume, Variable, Source, Endpoint, Manifest]
SMALL = Manifest(
    project="shop",
    environment="dev",
    endpoints=(
        Endpoint(
            id="a",
            kind="job",
            directory="endpoints/a",
            functions=(
                Function(id="a", kind="job", module="m", attribute="handler", file="f", line=1, route="/a", batch=None),
            ),
            python="3.11",
            fingerprint="0",
        ),
    ),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(MANIFEST)
def test_a_manifest_reads_back_as_it_was(manifest: Manifest) -> None:
    text = dumps(manifest)

    assert loads(text) == manifest
    assert dumps(loads(text)) == text


@pytest.mark.parametrize("record", RECORDS)
def test_every_record_is_frozen(record: type) -> None:
    assert record.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(record)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, item in inner for deeper in paths(item, (*path, key)))]


def changed(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


@given(st.sampled_from(paths(encode(SMALL))), JSON)
def test_a_damaged_manifest_is_refused_or_is_another_manifest(path: tuple[str | int, ...], new: Any) -> None:
    text = json.dumps(changed(encode(SMALL), path, new))

    try:
        manifest = loads(text)
    except ManifestError:
        return
    assert loads(dumps(manifest)) == manifest


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        (("endpoints",), {}, "Manifest.endpoints must be a list, not {}"),
        (("endpoints", 0, "concurrency"), "1", "Manifest.endpoints[0].concurrency must be int, not '1'"),
        (("endpoints", 0, "concurrency"), True, "Manifest.endpoints[0].concurrency must be int, not True"),
        (("endpoints", 0, "kind"), "cron", "Manifest.endpoints[0].kind must be one of ('job', 'http', 'app')"),
        (("endpoints", 0, "functions", 0, "batch"), 1, "Manifest.endpoints[0].functions[0].batch must be an object"),
        (("endpoints", 0, "scaler"), {"type": "queue_delay"}, "missing 1 required keyword-only argument: 'value'"),
        (("endpoints", 0, "scaler", "type"), None, "Manifest.endpoints[0].scaler.type must be one of"),
        (("project",), None, "Manifest.project must be str, not None"),
    ],
)
def test_a_damage_is_told_with_its_place(path: tuple[str | int, ...], new: Any, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        loads(json.dumps(changed(encode(SMALL), path, new)))

    assert message in caught.value.what


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"has unknown fields \['colour'\]"):
        loads(json.dumps({**encode(SMALL), "colour": 1}))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00"])
def test_no_json(text: str) -> None:
    with pytest.raises(ManifestError, match="the manifest is no JSON"):
        loads(text)


@pytest.mark.parametrize("value", [{}, [], None, 1, {"version": 2}, {"version": "1"}])
def test_another_version_is_refused_with_the_reason(value: Any) -> None:
    with pytest.raises(ManifestError, match=f"this flashfw reads {VERSION}; use the same flashfw on both sides"):
        loads(json.dumps(value))


@pytest.mark.parametrize("value", ["x" * 100_000, ["x"] * 100_000, {f"field{n}": n for n in range(10_000)}])
def test_what_does_not_fit_is_shown_in_part(value: Any) -> None:
    for document in (value, {"type": value, "value": 4}):
        with pytest.raises(ManifestError) as raised:
            decode(Scaler, document)
        assert len(str(raised.value)) < 1_000


def test_a_whole_number_may_stand_for_seconds() -> None:
    assert decode(Scaler, {"type": "queue_delay", "value": 4}) == Scaler(type="queue_delay", value=4.0)


def test_an_endpoint_is_found_by_its_id() -> None:
    assert SMALL.endpoint("a") is SMALL.endpoints[0]
    assert SMALL.endpoint("b") is None


def test_the_text_is_the_same_in_every_process() -> None:
    text = dumps(SMALL)
    code = "import sys; from flashfw.manifest import dumps, loads; print(dumps(loads(sys.stdin.read())), end='')"

    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code], input=text, capture_output=True, text=True, env={"PYTHONHASHSEED": seed}
        )
        assert run.stdout == text
