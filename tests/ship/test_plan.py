"""What a plan says: per endpoint, from two releases and what waits on the server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from flashfw.bundle.release import Layer, Packages, Release
from flashfw.manifest import Endpoint, Function, Manifest, Retries, Scaler, Source
from flashfw.project.fingerprint import fingerprint
from flashfw.ship.changes import applied, differences
from flashfw.ship.plan import PackageChange, compare, plan, result
from flashfw.ship.target import Host, Shipped, Situation
from tests.ship.builds import SHOP, build

HOST = Host(flashfw="0.1.0", api=1)
KEY = "a" * 16

names = st.sampled_from(["a", "b", "group/c", "index"])
digests = st.sampled_from(["1" * 64, "2" * 64])
sources = st.dictionaries(st.sampled_from(["lib/x.py", "endpoints/a/handler.py", "data.bin"]), digests)
functions = st.builds(
    Function,
    id=st.sampled_from(["a", "a/upscale", "a::method"]),
    kind=st.just("job"),
    module=st.just("endpoints.a.handler"),
    attribute=st.sampled_from(["handler", "Other"]),
    file=st.just("endpoints/a/handler.py"),
    line=st.integers(1, 3),
    route=st.just("/a"),
    timeout_s=st.sampled_from([5.0, 600.0]),
    retries=st.builds(Retries, max=st.integers(0, 2)),
)


@st.composite
def endpoints(draw: st.DrawFn, name: str) -> Endpoint:
    found = {function.id: function for function in draw(st.lists(functions, min_size=1, max_size=3))}
    made = Endpoint(
        id=name,
        kind="job",
        directory=f"endpoints/{name}",
        functions=tuple(found[key] for key in sorted(found)),
        workers_max=draw(st.integers(1, 3)),
        scaler=Scaler(type="queue_delay", value=draw(st.sampled_from([1.0, 4.0]))),
        memory_bytes=draw(st.sampled_from([None, 10**9])),
        python="3.12",
        environment=KEY,
        sources=tuple(Source(path=path, sha256=digest) for path, digest in sorted(draw(sources).items())),
        fingerprint="",
    )
    return replace(made, fingerprint=fingerprint(made))


@st.composite
def release(draw: st.DrawFn) -> Release:
    ids = sorted(draw(st.sets(names)))
    manifest = Manifest(project="p", environment="e", endpoints=tuple(draw(endpoints(name)) for name in ids))
    layer = Layer(digest="0" * 64, size_bytes=1)
    packages = Packages(key=KEY, python="3.12", platform="x", layer=layer)
    return Release(manifest=manifest, source=layer, packages=(packages,), flashfw="0.1.0")


@given(release())
def test_equal_releases_need_nothing(one: Release) -> None:
    situation = Situation(host=HOST, current=Shipped(id=one.id, created=1.0, by="me"), release=one)

    made = plan(one, situation)

    assert made.is_empty
    assert made.is_done
    assert {row.endpoint for row in made.rows} == {endpoint.id for endpoint in one.manifest.endpoints}


@settings(max_examples=60)
@given(release(), release())
def test_carrying_the_rows_out_over_the_old_gives_the_new(old: Release, new: Release) -> None:
    assert result(old.manifest, compare(old, new)) == {endpoint.id: endpoint for endpoint in new.manifest.endpoints}


@settings(max_examples=60)
@given(endpoints("a"), endpoints("a"))
def test_differences_lead_from_one_record_to_the_other(old: Endpoint, new: Endpoint) -> None:
    assert applied(old, differences(old, new)) == new
    assert differences(new, new) == ()


def shipped(one: Release, **more: object) -> Situation:
    return Situation(host=HOST, current=Shipped(id=one.id, created=1.0, by="me"), release=one, **more)  # type: ignore[arg-type]


def test_a_first_ship_creates_everything(tmp_path: Path) -> None:
    made = plan(build(tmp_path / "shop", SHOP).release, Situation(host=HOST))

    assert made.of("create") == ("add", "api")
    assert (made.old, made.problems, made.is_done) == (None, (), False)


def test_a_change_names_the_file_that_rolls_it(tmp_path: Path) -> None:
    old = build(tmp_path / "old", SHOP).release
    edited = {"endpoints/add/handler.py": "def handler(a: int) -> int:\n    return a\n"}
    config = {"endpoints/add/endpoint.toml": "workers = [1, 5]\n"}
    new = build(tmp_path / "new", {**SHOP, **edited, **config}).release

    (row, kept) = plan(new, shipped(old)).rows

    assert (row.action, row.strategy, kept.endpoint, kept.action) == ("change", "surge", "api", "keep")
    assert row.files == (("endpoints/add/endpoint.toml", "new"), ("endpoints/add/handler.py", "edited"))
    assert {change.path: (change.old, change.new) for change in row.changes if change.path[0].startswith("w")} == {
        ("workers_min",): (0, 1),
        ("workers_max",): (3, 5),
    }


def test_a_change_of_the_lock_names_the_versions(tmp_path: Path) -> None:
    old = build(tmp_path / "old", SHOP, distributions=("numpy==1.26.4", "tqdm==4.66", "x==1")).release
    new = build(tmp_path / "new", SHOP, distributions=("numpy==2.0.0", "rich==13", "x==1")).release

    row = plan(new, shipped(old)).rows[0]

    assert row.packages == (
        PackageChange("numpy", "1.26.4", "2.0.0"),
        PackageChange("rich", None, "13"),
        PackageChange("tqdm", "4.66", None),
    )


def test_a_deletion_counts_the_jobs_that_it_ends(tmp_path: Path) -> None:
    old = build(tmp_path / "old", SHOP).release
    new = build(tmp_path / "new", {name: text for name, text in SHOP.items() if "add" not in name}).release

    made = plan(new, shipped(old, jobs={"add": 3, "other": 5}))

    assert (made.removes, made.jobs) == (("add",), 3)


def test_what_cannot_be_read_is_spared_with_all_below(tmp_path: Path) -> None:
    more = {"endpoints/group/a/endpoint.toml": "", "endpoints/group/a/handler.py": "def handler(): ..."}
    old = build(tmp_path / "old", {**SHOP, **more}).release
    new = build(tmp_path / "new", {"flashfw.toml": SHOP["flashfw.toml"]}).release

    made = plan(new, shipped(old), broken=["endpoints/group", "endpoints/ad"])

    assert made.removes == ("add", "api")
    assert [row.endpoint for row in made.rows if row.spared] == ["group/a"]


def test_all_that_a_server_lacks_is_told_at_once(tmp_path: Path) -> None:
    config = {"endpoints/add/endpoint.toml": 'secrets = ["ONE", "TWO", "HERE"]\n'}
    new = build(tmp_path / "shop", {**SHOP, **config}).release
    host = replace(HOST, pythons=("3.10", "3.11"))

    made = plan(new, Situation(host=host, secrets=frozenset({"HERE"})))

    assert [str(problem) for problem in made.problems] == [
        "the server has no Python 3.12: it has 3.10, 3.11; set `python` to one of these, or install it there",
        "add wants the secret 'ONE', which the server lacks; flashfw secret set prod ONE",
        "add wants the secret 'TWO', which the server lacks; flashfw secret set prod TWO",
    ]


def test_a_server_of_another_project_or_environment_takes_nothing(tmp_path: Path) -> None:
    new = build(tmp_path / "shop", SHOP).release

    other = plan(new, Situation(host=replace(HOST, project="bar", environment="prod"))).problems
    staging = plan(new, Situation(host=replace(HOST, project="shop", environment="staging"))).problems

    assert "that of the project 'bar', not of 'shop'" in str(other[0])
    assert "is the environment 'staging' of this project, not 'prod'" in str(staging[0])
