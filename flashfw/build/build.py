"""A project to a release and its archives: the manifest, one layer of source, one layer per set of packages.

The same files and the same lock give the same bytes, wherever and whenever. Nothing is built of a project that has an
error, and what did not change is not built again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import flashfw
from flashfw import whole
from flashfw.build import lock as locks
from flashfw.build import lock_inputs, lock_stale, packages, source
from flashfw.build.digests import Digests
from flashfw.build.lock import FILE, Lock, LockedEnvironment
from flashfw.build.packages import BuiltPackages
from flashfw.build.source import LeftOut, Sources
from flashfw.build.store import Store, Stored, unusable
from flashfw.build.words import amount, some
from flashfw.bundle import release as releases
from flashfw.bundle.release import Release
from flashfw.errors import NothingCollectedError, Problem, ProjectError, ordered
from flashfw.manifest import Manifest
from flashfw.project.collect import collect
from flashfw.project.compile import compile as compile_project
from flashfw.project.fingerprint import fingerprint
from flashfw.project.ignore import Ignores
from flashfw.project.model import Project, Root
from flashfw.project.settings import BuildSettings, load_settings

Tell = Callable[[str], None]

FOLDER = ".flashfw/build"
RELEASE = "release.json"
KEPT_SOURCES = 5
"""Archives of the source that stay below the project, so that going back is no work."""

LARGE_SOURCE_BYTES = 250_000_000
AT_ONCE = 2
"""How many environments are installed at a time: uv itself uses all cores."""


@dataclass(frozen=True, slots=True)
class BuiltSource:
    """The project's files as they travel, and what stayed behind."""

    stored: Stored
    files: int
    left_out: tuple[LeftOut, ...]
    reused: bool


@dataclass(frozen=True, slots=True)
class Built:
    """A finished build. `archives` are the files to upload, by the digest of their layer; `problems` are warnings.

    `locked` tells that there was no flashfw.lock, so that this build wrote one.
    """

    release: Release
    archives: Mapping[str, Path]
    source: BuiltSource
    packages: tuple[BuiltPackages, ...]
    problems: tuple[Problem, ...]
    locked: bool


def build(
    root: Root,
    *,
    environment: str,
    variables: Mapping[str, str],
    cache: Path,
    on_progress: Tell = lambda text: None,
) -> Built:
    """Builds a project for one of its environments, and writes `.flashfw/build/release.json`.

    `variables` are the machine's, for uv; `cache` is the user's folder for flashfw, which keeps layers of packages;
    `on_progress` hears a line for each step that takes time.

    >>> build(roots.find(Path.cwd()), environment="prod", variables=os.environ, cache=cache)  # doctest: +SKIP

    Raises:
        NothingCollectedError: the project has no endpoint.
        ProjectError: something is wrong in it, all of which it tells; nothing is built.
        UsageError: it declares no such environment.
        LockError, InstallFailed, IndexUnreachable: flashfw.lock cannot be used, or what it names not be installed.
        StoreError: a folder cannot be written.
    """
    project = collect(root)
    manifest, found = compile_project(project, environment=environment)
    problems = [*project.problems, *found]
    if not project.endpoints and not _has_error(problems):
        raise NothingCollectedError(f"no endpoint in {root.path / 'endpoints'}", hint="a handler.py makes one")
    folder = _folder(root.path)
    settings = load_settings(root)[0].build
    digests = Digests(folder / "digests.json", now_ns=time.time_ns())
    sources = source.find(root.path, exclude=Ignores.of(settings.exclude), counted=_counted(manifest), digests=digests)
    problems += sources.problems
    lock = locks.load(root.path)
    if lock is not None:
        problems += lock_stale.stale(lock, manifest, root=root.path)
    _refuse(problems)
    _keep(digests, folder)
    writes_lock = lock is None
    lock = lock or _lock(project, variables, on_progress)
    store = Store(cache / "layers")
    made = _packages(
        manifest, lock, root=root.path, store=store, settings=settings, variables=variables, tell=on_progress
    )
    packed = _source(sources, Store(folder / "layers"), on_progress)
    problems += [*_too_large(made, settings, root), *_large_source(sources, packed.stored, settings, root)]
    _refuse(problems)
    release = Release(
        manifest=_with_environments(manifest, made),
        source=packed.stored.layer,
        packages=tuple(found.packages for found in made),
        flashfw=flashfw.__version__,
    )
    _write_release(folder, release)
    archives = {stored.layer.digest: stored.file for stored in (packed.stored, *(found.stored for found in made))}
    return Built(release, archives, packed, made, ordered(problems), writes_lock)


def _counted(manifest: Manifest) -> dict[str, str]:
    return {found.path: found.sha256 for endpoint in manifest.endpoints for found in endpoint.sources}


def _folder(root: Path) -> Path:
    folder = root / FOLDER
    try:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        if not (folder.parent / ".gitignore").exists():
            whole.write(folder.parent / ".gitignore", "*\n")
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise unusable(folder, error) from error
    return folder


def _keep(digests: Digests, folder: Path) -> None:
    try:
        digests.save()
    except OSError as error:
        raise unusable(folder, error) from error


def _lock(project: Project, variables: Mapping[str, str], tell: Tell) -> Lock:
    """A lock for a project that has none yet, written where it belongs."""
    from flashfw.build import resolving  # most projects have one

    made = resolving.lock(project, previous=None, platform=locks.PLATFORM, variables=variables, tell=tell)
    locks.save(project.root.path, made)
    return made


def _packages(
    manifest: Manifest,
    lock: Lock,
    *,
    root: Path,
    store: Store,
    settings: BuildSettings,
    variables: Mapping[str, str],
    tell: Tell,
) -> tuple[BuiltPackages, ...]:
    """One for each distinct environment that the manifest's endpoints have, in the order of its key."""
    wanted: dict[str, tuple[LockedEnvironment, list[str]]] = {}
    held = lock_inputs.held(lock, manifest, root=root)
    for endpoint in manifest.endpoints:
        if (locked := held.get(endpoint.id)) is None:
            raise ProjectError([Problem(f"has nothing for {endpoint.id}", FILE, hint="run `flashfw lock`")])
        wanted.setdefault(locked.key, (locked, []))[1].append(endpoint.id)
    store.sweep(now_s=time.time())
    exclude = settings.exclude_installed

    def one(found: tuple[LockedEnvironment, list[str]]) -> BuiltPackages:
        locked, ids = found
        return packages.build(
            locked, tuple(ids), root=root, store=store, exclude=exclude, variables=variables, tell=tell
        )

    if len(wanted) == 1:
        return tuple(map(one, wanted.values()))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return tuple(sorted(threads.map(one, wanted.values()), key=lambda found: found.packages.key))


def _source(sources: Sources, store: Store, tell: Tell) -> BuiltSource:
    found = store.find(sources.listing)
    if found is None:
        tell(f"packing {len(sources.files)} files")
        try:
            found_or_made = store.add(sources.listing, (file.entry for file in sources.files.values()), {})
        except OSError as error:
            raise unusable(store.folder, error) from error
        store.sweep(now_s=time.time())
        store.keep_newest(KEPT_SOURCES)
    else:
        found_or_made = found
    left_out = tuple(sorted(sources.left_out, key=lambda item: item.path))
    return BuiltSource(found_or_made, len(sources.files), left_out, reused=found is not None)


def _with_environments(manifest: Manifest, made: tuple[BuiltPackages, ...]) -> Manifest:
    """The manifest with the packages of each endpoint, which its fingerprint covers."""
    keys = {endpoint: found.packages.key for found in made for endpoint in found.endpoints}
    endpoints = [replace(endpoint, environment=keys[endpoint.id]) for endpoint in manifest.endpoints]
    return replace(manifest, endpoints=tuple(replace(found, fingerprint=fingerprint(found)) for found in endpoints))


def _write_release(folder: Path, release: Release) -> None:
    text = releases.dumps(release)
    file = folder / RELEASE
    try:
        if not file.exists() or file.read_text("utf-8", errors="surrogatepass") != text:
            whole.write(file, text)
    except OSError as error:
        raise unusable(folder, error) from error


def _too_large(made: tuple[BuiltPackages, ...], settings: BuildSettings, root: Root) -> Iterator[Problem]:
    for found in made:
        size_bytes = found.packages.layer.size_bytes
        if size_bytes > settings.max_size_bytes:
            largest = ", ".join(f"{name} {amount(size)}" for name, size in [*found.sizes.items()][:10])
            limit = amount(settings.max_size_bytes)
            what = f"the packages of {some(found.endpoints)} come to {amount(size_bytes)}, more than {limit}"
            hint = (
                f"the largest are {largest}; ask for fewer or smaller ones (a build for the CPU, say), leave files of "
                "them out by 'build.exclude_installed', or raise 'build.max_size'"
            )
            yield Problem(what, root.config.name, hint=hint)


def _large_source(sources: Sources, stored: Stored, settings: BuildSettings, root: Root) -> Iterator[Problem]:
    size_bytes = stored.layer.size_bytes
    if size_bytes > min(LARGE_SOURCE_BYTES, settings.max_size_bytes):
        by_size = sorted(sources.files.values(), key=lambda file: (-file.size_bytes, file.path))
        largest = ", ".join(f"{file.path} {amount(file.size_bytes)}" for file in by_size[:10])
        hint = f"the largest are {largest}; leave out what no endpoint needs by .flashfwignore or 'build.exclude'"
        is_error = size_bytes > settings.max_size_bytes
        limit = f", more than {amount(settings.max_size_bytes)}" if is_error else ""
        what = f"the project's files come to {amount(size_bytes)}{limit}"
        yield Problem(what, root.config.name, hint=hint, level="error" if is_error else "warning")


def _has_error(problems: list[Problem]) -> bool:
    return any(problem.level == "error" for problem in problems)


def _refuse(problems: list[Problem]) -> None:
    if _has_error(problems):
        raise ProjectError(ordered(problems))
