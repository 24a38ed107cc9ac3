"""A release: the manifest and the layers that its workers need, as one frozen record named by its content."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from flashfw import manifest as manifests
from flashfw.errors import ManifestError
from flashfw.manifest import Manifest

FLAWS_SHOWN = 10
API = 1
"""The protocol between `flashfw ship` and a server."""

ID_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One archive of files: the SHA-256 (hex) and the size of its tar, both before compression.

    Before, so that they do not depend on who compressed it.
    """

    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """The installed distributions of one locked environment; `key` is the lock's hash of it.

    `python` is a version such as "3.11", `platform` what uv calls a target. The layer holds what lies in
    `site-packages`; `distributions` name it with versions ("numpy==1.26.4"), sorted, for a plan to tell what changes.
    """

    key: str
    python: str
    platform: str
    layer: Layer
    distributions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a server runs: a manifest, the project's files, the packages. `flashfw` is the version that built it."""

    manifest: Manifest
    source: Layer
    packages: tuple[Packages, ...]
    flashfw: str

    @property
    def id(self) -> str:
        """The same for the same content, 12 hex digits."""
        return hashlib.sha256(dumps(self).encode("utf-8", "surrogatepass")).hexdigest()[:ID_DIGITS]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer that it needs, each once."""
        return tuple(dict.fromkeys((self.source, *(found.layer for found in self.packages))))

    def packages_of(self, endpoint_id: str) -> Packages | None:
        """What an endpoint's workers import beside the project; None where there is no such endpoint."""
        endpoint = self.manifest.endpoint(endpoint_id)
        key = endpoint.environment if endpoint else ""
        return next((found for found in self.packages if found.key == key), None)


def dumps(release: Release) -> str:
    """The release as JSON text, the same bytes for the same release."""
    # On one line: with an indent it takes ten times as long.
    return json.dumps(manifests.encode(release), separators=(",", ":"), ensure_ascii=False) + "\n"


def loads(text: str) -> Release:
    """The release that `dumps` wrote; names in it are safe to be names of files.

    Raises:
        ManifestError: the text is no JSON, is damaged, or comes from another version of flashfw.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"the release is no JSON: {error}") from error
    inner = value.get("manifest") if isinstance(value, dict) else None
    version = inner.get("version") if isinstance(inner, dict) else None
    if version != manifests.VERSION:
        raise ManifestError(
            f"the release's manifest has version {version!r}, this flashfw reads {manifests.VERSION}",
            hint="use the same flashfw on both sides",
        )
    release: Release = manifests.decode(Release, value)
    if flaws := tuple(_flaws(release)):
        raise ManifestError(f"the release is damaged: {', '.join(flaws[:FLAWS_SHOWN])}")
    return release


def is_digest(text: str) -> bool:
    """Whether it is a SHA-256 in hex, which may be the name of a file.

    >>> is_digest("a" * 64), is_digest("../etc"), is_digest("A" * 64)
    (True, False, False)
    """
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def _flaws(release: Release) -> Iterator[str]:
    for layer in release.layers:
        if not is_digest(layer.digest) or layer.size_bytes < 0:
            yield f"{layer.digest!r:.100} with {layer.size_bytes} bytes is no layer"
    keys = Counter(found.key for found in release.packages)
    for found in release.packages:
        if not re.fullmatch(r"[0-9a-z]{8,64}", found.key) or keys[found.key] > 1:
            yield f"{found.key!r:.100} is no key of an environment"
        if not re.fullmatch(r"3\.\d{1,3}", found.python):
            yield f"{found.python!r:.100} is no version of Python"
    for endpoint in release.manifest.endpoints:
        if endpoint.environment not in keys:
            yield f"{endpoint.id!r:.100} wants the environment {endpoint.environment!r:.100}, which is not there"
