"""`flashfw build`: the release of a project and its archives, ready to be shipped."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from flashfw.build import build as builds
from flashfw.build.build import Built
from flashfw.build.store import unusable
from flashfw.build.words import amount, some
from flashfw.bundle import release as releases
from flashfw.cli import options, output
from flashfw.project import root as roots


@click.command()
@click.option("--env", "environment", metavar="NAME", default="local", help="The environment to build for; else local.")
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), metavar="FOLDER", help="Also put everything there."
)
@options.root
@options.json
def command(environment: str, folder: Path | None, root: Path | None, as_json: bool) -> None:
    """Make the release of a project: packages, source and manifest.

    It comes in layers; what did not change is not built again. `flashfw ship` builds by itself.
    """
    import platformdirs

    started_s = time.perf_counter()
    place = roots.find(Path.cwd(), explicit=root)
    built = builds.build(
        place,
        environment=environment,
        variables=os.environ,
        cache=Path(platformdirs.user_cache_dir("flashfw")),
        on_progress=lambda text: output.note(output.printable(text)),
    )
    if folder is not None:
        _export(built, folder)
    if built.locked:
        output.note("locked: flashfw.lock written; commit it")
    took_s = time.perf_counter() - started_s
    if as_json:
        output.document(_document(built, environment, place.path, took_s))
    else:
        _show(built, environment, took_s)
    output.problems(built.problems)


def _export(built: Built, folder: Path) -> None:
    """The release and its archives, by the digests of their layers."""
    try:
        (folder / "layers").mkdir(parents=True, exist_ok=True)
        for digest, file in built.archives.items():
            copy = folder / "layers" / f"{digest}.tar.zst"
            aside = copy.with_suffix(".new")
            shutil.copyfile(file, aside)
            os.replace(aside, copy)
        (folder / builds.RELEASE).write_text(releases.dumps(built.release), encoding="utf-8", errors="surrogatepass")
    except OSError as error:
        raise unusable(folder, error) from error


def _show(built: Built, environment: str, took_s: float) -> None:
    count = output.plural(len(built.release.manifest.endpoints), "endpoint")
    name = f"{built.release.manifest.project}/{environment}"
    output.line(f"{output.paint(output.printable(name), 'bold')}  release {built.release.id}, {count}, {took_s:.2f} s")
    rows = [["layer", "files", "size", "packed", ""], *_rows(built)]
    for line in output.columns(rows):
        output.line(f"  {line}")
    if kept := [found.path for found in built.source.left_out if found.why == "credentials"]:
        output.line(f"  left out: {output.printable(some(kept))} (credentials never travel)")


def _rows(built: Built) -> Iterator[list[str]]:
    source = built.source
    yield _row("source", output.plural(source.files, "file"), source.stored, reused=source.reused)
    for found in built.packages:
        name = f"packages of {some(found.endpoints, 3)}"
        yield _row(name, output.plural(len(found.sizes), "package"), found.stored, reused=found.reused)


def _row(name: str, what: str, stored: Any, *, reused: bool) -> list[str]:
    sizes = [amount(stored.layer.size_bytes), amount(stored.packed_bytes)]
    return [output.printable(name), what, *sizes, "unchanged" if reused else "built"]


def _document(built: Built, environment: str, root: Path, took_s: float) -> dict[str, Any]:
    source = built.source
    return {
        "project": built.release.manifest.project,
        "environment": environment,
        "root": str(root),
        "release": built.release.id,
        "file": str(root / builds.FOLDER / builds.RELEASE),
        "seconds": round(took_s, 3),
        "locked": built.locked,
        "source": {
            **_layer(source.stored, reused=source.reused),
            "files": source.files,
            "left_out": [{"path": found.path, "why": found.why} for found in source.left_out],
        },
        "packages": [
            {
                **_layer(found.stored, reused=found.reused),
                "key": found.packages.key,
                "python": found.packages.python,
                "platform": found.packages.platform,
                "endpoints": list(found.endpoints),
                "distributions": [{"name": name, "size_bytes": size} for name, size in found.sizes.items()],
            }
            for found in built.packages
        ],
        "problems": [output.problem_json(problem) for problem in built.problems],
    }


def _layer(stored: Any, *, reused: bool) -> dict[str, Any]:
    return {
        "digest": stored.layer.digest,
        "size_bytes": stored.layer.size_bytes,
        "packed_bytes": stored.packed_bytes,
        "archive": str(stored.file),
        "unchanged": reused,
    }
