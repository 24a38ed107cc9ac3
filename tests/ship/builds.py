"""Releases as a build makes them, of small trees, without a package index."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import zstandard

from flashfw.bundle.release import Layer, Packages, Release
from flashfw.project.collect import collect
from flashfw.project.compile import compile as compile_project
from flashfw.project.fingerprint import fingerprint
from flashfw.project.root import find

KEY = "0123456789abcdef"
SHOP = {
    "flashfw.toml": '[project]\nname = "shop"\npython = "3.12"\n[environments.prod]\nurl = "http://127.0.0.1:1"\n',
    "endpoints/add/handler.py": "def handler(a: int, b: int = 1) -> int:\n    return a + b\n",
    "endpoints/api/handler.py": "def get() -> str:\n    return 'hello'\n",
}


class Shippable(Protocol):
    """What a build leaves: a release, and where its archives lie, by digest."""

    @property
    def release(self) -> Release: ...

    @property
    def archives(self) -> Mapping[str, Path]: ...


Make = Callable[[Path, Mapping[str, str]], Shippable]
"""From a folder and the files to write there."""


@dataclass(frozen=True)
class Built:
    """A release whose packages are none, for servers without workers."""

    release: Release
    archives: Mapping[str, Path]


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def build(
    folder: Path, files: Mapping[str, str], *, environment: str = "prod", distributions: tuple[str, ...] = ()
) -> Built:
    """The release of a tree that is written to a folder; `distributions` name what its one environment holds."""
    write(folder, files)
    manifest, _ = compile_project(collect(find(folder)), environment=environment)
    key = hashlib.sha256("\n".join((KEY, *distributions)).encode()).hexdigest()[:16]
    endpoints = (replace(endpoint, environment=key, fingerprint="") for endpoint in manifest.endpoints)
    whole = tuple(replace(endpoint, fingerprint=fingerprint(endpoint)) for endpoint in endpoints)
    out = folder.parent / f"{folder.name}-layers"
    out.mkdir(exist_ok=True)
    archives: dict[str, Path] = {}
    source = _packed({name: text.encode() for name, text in files.items()}, out, archives)
    content = {f"{name.partition('==')[0]}.py": name.encode() for name in distributions}
    packages = Packages(
        key=key,
        python="3.12",
        platform="x86_64-manylinux_2_28",
        layer=_packed(content, out, archives),
        distributions=distributions,
    )
    made = replace(manifest, endpoints=whole)
    return Built(Release(manifest=made, source=source, packages=(packages,), flashfw="0.1.0"), archives)


def _packed(files: Mapping[str, bytes], out: Path, archives: dict[str, Path]) -> Layer:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(files[name]), 0o644
            archive.addfile(entry, io.BytesIO(files[name]))
    data = tar.getvalue()
    layer = Layer(digest=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    archives[layer.digest] = out / f"{layer.digest}.tar.zst"
    archives[layer.digest].write_bytes(zstandard.ZstdCompressor().compress(data))
    return layer
