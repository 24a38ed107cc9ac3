"""The record of a release: the same text and name for the same content, and nothing in it that could leave a folder."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from flashfw.bundle import release as releases
from flashfw.bundle.release import Layer, Packages, Release
from flashfw.errors import ManifestError
from flashfw.manifest import Endpoint, Function, Manifest

KEY = "0123456789abcdef"


def made() -> Release:
    function = Function(
        id="a",
        kind="job",
        module="endpoints.a.handler",
        attribute="handler",
        file="endpoints/a/handler.py",
        line=1,
        route="/a",
    )
    endpoint = Endpoint(
        id="a",
        kind="job",
        directory="endpoints/a",
        functions=(function,),
        python="3.11",
        environment=KEY,
        fingerprint="f",
    )
    packages = Packages(
        key=KEY, python="3.11", platform="x86_64-manylinux_2_28", layer=Layer(digest="b" * 64, size_bytes=2)
    )
    return Release(
        manifest=Manifest(project="shop", environment="prod", endpoints=(endpoint,)),
        source=Layer(digest="a" * 64, size_bytes=1),
        packages=(packages,),
        flashfw="0.1.0",
    )


def test_what_was_written_is_read() -> None:
    release = made()

    assert releases.loads(releases.dumps(release)) == release


def test_the_name_follows_the_content() -> None:
    release = made()

    assert release.id == releases.loads(releases.dumps(release)).id
    assert len(release.id) == 12
    assert release.id != replace(release, flashfw="0.2.0").id


def test_each_layer_is_told_once() -> None:
    release = made()
    same = replace(release.packages[0], layer=release.source)

    assert len(release.layers) == 2
    assert replace(release, packages=(same,)).layers == (release.source,)


def test_the_packages_of_an_endpoint() -> None:
    release = made()

    assert release.packages_of("a") == release.packages[0]
    assert release.packages_of("b") is None


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("source.digest", "../../etc", "is no layer"),
        ("source.size_bytes", -1, "is no layer"),
        ("source.size_bytes", True, "must be int"),
        ("packages.0.layer.digest", "A" * 64, "is no layer"),
        ("packages.0.key", "../key", "is no key"),
        ("packages.0.key", "89abcdef01234567", "which is not there"),
        ("packages.0.python", "3.11/..", "is no version of Python"),
        ("manifest.version", 99, "has version 99"),
        ("manifest", None, "has version None"),
        ("more", 1, "unknown fields"),
    ],
)
def test_a_damaged_record_is_refused(path: str, value: object, told: str) -> None:
    document = json.loads(releases.dumps(made()))
    place = document
    *above, last = path.split(".")
    for name in above:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[last] = value

    with pytest.raises(ManifestError, match=told):
        releases.loads(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        releases.loads(text)


def test_an_environment_is_needed_by_each_endpoint() -> None:
    release = made()
    (endpoint,) = release.manifest.endpoints
    without = replace(release, manifest=replace(release.manifest, endpoints=(replace(endpoint, environment=""),)))

    with pytest.raises(ManifestError, match="which is not there"):
        releases.loads(releases.dumps(without))
