"""One locked environment to a folder of installed packages: what the lock names, by its hashes, nothing else."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from flashfw.build import lock_inputs, lock_project, lock_uv
from flashfw.build.lock import LockedEnvironment, LockedPackage
from flashfw.build.lock_uv import UvFailed
from flashfw.errors import Exit, FlashfwError

_MACHINES = ("direct_url.json", "uv_cache.json", "uv_build.json", "INSTALLER", "REQUESTED")
"""Files of a distribution's metadata that say where and how it was installed, and not what it is."""

_CHOOSING = frozenset(
    f"UV_{name}" for name in ("EXCLUDE_NEWER", "CONSTRAINT", "OVERRIDE", "EXCLUDE", "RESOLUTION", "PRERELEASE")
)
"""Variables that choose versions, which are chosen."""

_SAFE = re.compile(r"[^\s\0]+")


class InstallFailed(FlashfwError):
    """What is locked cannot be installed; `what` holds uv's own words."""

    exit = Exit.PROBLEMS


class IndexUnreachable(FlashfwError):
    """A package index did not answer, or did not let us in."""

    exit = Exit.TARGET


def install(environment: LockedEnvironment, *, root: Path, into: Path, variables: Mapping[str, str]) -> None:
    """Install an environment into a folder as `site-packages` would hold it, for its platform and Python.

    The same lock gives the same files wherever that is done, but for scripts in `bin/`, whose first line names an
    interpreter of this machine, and for what is built from source. `into` is made; what it holds already stays, so
    give an empty one. `root` is the project's folder, `variables` the machine's environment.

    Raises:
        InstallFailed: an archive is not the one that was locked, is gone from its index, or does not build.
        IndexUnreachable: an index did not answer.
    """
    _installed(environment, root, variables, where=["--target", str(into.absolute()), *_target(environment)])
    for file in (into / ".lock", *into.glob("*.dist-info")):
        _clean(file)


def install_here(environment: LockedEnvironment, *, root: Path, python: Path, variables: Mapping[str, str]) -> None:
    """Install an environment into the virtual environment of the interpreter `python`.

    Raises:
        InstallFailed, IndexUnreachable: as `install`.
    """
    _installed(environment, root, variables, where=["--python", str(python)])


def _installed(
    environment: LockedEnvironment, root: Path, variables: Mapping[str, str], *, where: Sequence[str]
) -> None:
    """Archives first, all of which have a hash; then what uv cannot hash: folders, checked here, and git commits."""
    _check(environment, root)
    project = lock_project.find(root)
    kept = {name: value for name, value in variables.items() if name not in _CHOOSING}
    hashed = [package for package in environment.packages if not _is_source(package, root)]
    sources = [package for package in environment.packages if _is_source(package, root)]
    direct = {lock_inputs.distribution(text) for text in environment.requirements}
    with tempfile.TemporaryDirectory(prefix="flashfw-lock-") as made:
        folder = Path(made)
        for packages, options in ((hashed, ["--require-hashes", "-c", "hashes.txt"]), (sources, ["--refresh"])):
            if not packages:
                continue
            lines = [_line(package, root) for package in packages]
            lock_project.write(folder, project, lines, python=environment.python, direct=direct)
            (folder / "hashes.txt").write_text("".join(map(_constraint, lines, packages)), encoding="utf-8")
            asked = ["-r", "pyproject.toml", "--no-deps", "--link-mode", "copy", "--prerelease", "allow"]
            try:
                lock_uv.run("pip", "install", *asked, *options, *where, *project.options(), cwd=folder, variables=kept)
            except UvFailed as failed:
                raise _failure(environment, failed) from failed


def _check(environment: LockedEnvironment, root: Path) -> None:
    """Nothing that a damaged lock says gets to uv as something else than a package, and folders are what they were."""
    for package in environment.packages:
        texts = (package.name, package.version or "0", package.url or "-", *package.hashes)
        if not all(map(_SAFE.fullmatch, texts)) or not package.path.isprintable():
            what = f"flashfw.lock names a package that is none: {package.name!r}"
            raise InstallFailed(what, hint="run `flashfw lock`")
        if not package.hashes and not package.url.startswith("git+"):
            raise InstallFailed(f"flashfw.lock has no hash of {package.name}", hint="run `flashfw lock`")
    if changed := lock_inputs.changed_paths(environment, root):
        raise InstallFailed(f"{', '.join(changed)} changed since flashfw.lock was made", hint="run `flashfw lock`")


def _target(environment: LockedEnvironment) -> list[str]:
    options = ["--python-platform", environment.platform, "--python-version", environment.python]
    return [*options, *lock_uv.python_options(environment.python)]


def _is_source(package: LockedPackage, root: Path) -> bool:
    return package.url.startswith("git+") or (bool(package.path) and (root / package.path).is_dir())


def _line(package: LockedPackage, root: Path) -> str:
    if package.path:
        return f"{package.name} @ {(root / package.path).resolve().as_uri()}"
    return f"{package.name} @ {package.url}" if package.url else f"{package.name}=={package.version}"


def _constraint(line: str, package: LockedPackage) -> str:
    return f"{line} {' '.join(f'--hash={found}' for found in package.hashes)}\n"


def _failure(environment: LockedEnvironment, failed: UvFailed) -> FlashfwError:
    said = str(failed).replace(lock_project.NAME, "the environment")
    what = f"cannot install the locked packages of {', '.join(environment.endpoints)}: {said}"
    if failed.unreachable:
        return IndexUnreachable(what, hint="check that the package index can be reached, and its password")
    if "Hash mismatch" in said:
        hint = "an archive is another than when it was locked: find out why before you run `flashfw lock`"
        return InstallFailed(what, hint=hint)
    return InstallFailed(what, hint="`flashfw lock` resolves anew")


def _clean(path: Path) -> None:
    """Take away what tells of this machine, and the lines of it in the list of files."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for name in _MACHINES:
        (path / name).unlink(missing_ok=True)
    record = path / "RECORD"
    if record.is_file():
        gone = {f"{path.name}/{name}" for name in _MACHINES}
        rows = [row for row in csv.reader(io.StringIO(record.read_text("utf-8"))) if row and row[0] not in gone]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(sorted(rows))
        record.write_text(text.getvalue(), encoding="utf-8")
