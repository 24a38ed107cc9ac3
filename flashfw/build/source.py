"""The files of a project that a release takes along: by content, none that is secret, none from outside."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flashfw.build.digests import Digests
from flashfw.build.lock import FILE
from flashfw.bundle.archive import Entry
from flashfw.bundle.paths import ArchiveError, Names, flaw
from flashfw.bundle.tar import MAX_FILE_BYTES
from flashfw.errors import Problem
from flashfw.project import protected
from flashfw.project.ignore import Ignores

IGNORED = "ignore file"
EXCLUDED = "build.exclude"
HIDDEN = "hidden"
PART_OF_RELEASE = "part of the release itself"

_SMALL_BYTES = 1 << 20
"""Up to that a file is read each time; of a larger one the hash is kept for as long as its dates stay."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that travels: its path below the root, what is in it, and small contents themselves."""

    path: str
    sha256: str
    size_bytes: int
    executable: bool
    data: bytes | Path

    @property
    def entry(self) -> Entry:
        return Entry(self.path, self.data, self.executable, self.sha256)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file, or with a slash at its end a folder, that stays here; `why` is a `protected.Reason` or one of ours."""

    path: str
    why: str


@dataclass(slots=True)
class Sources:
    """The files of a project, in the order of their paths, what stays, and what cannot be."""

    files: dict[str, SourceFile] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def listing(self) -> str:
        """The same for the same files, wherever the project lies."""
        told = [(file.path, file.sha256, file.executable) for _, file in sorted(self.files.items())]
        return hashlib.sha256(repr(told).encode()).hexdigest()


def find(root: Path, *, exclude: Ignores, counted: Mapping[str, str], digests: Digests) -> Sources:
    """Walks a project. `counted` are the files that its endpoints run by, with their hashes in the manifest.

    What counts travels, whatever ignore files say and although its name begins with a dot: the release would not run
    without. Neither it nor anything else travels that is protected; what counts and is excluded is a problem.
    """
    scan = _Scan(root, exclude, digests)
    scan.walk()
    for path in counted:
        if path not in scan.found.files:
            scan.count(path)
    scan.found.files = dict(sorted(scan.found.files.items()))
    scan.found.problems += _collisions(scan.found.files)
    scan.found.problems += _changed(scan.found.files, counted)
    return scan.found


class _Scan:
    def __init__(self, root: Path, exclude: Ignores, digests: Digests) -> None:
        self.root = root
        self.real = os.path.realpath(root)
        self.exclude = exclude
        self.digests = digests
        self.found = Sources()

    def walk(self) -> None:
        pending: list[tuple[str, Ignores, tuple[str, ...]]] = [("", Ignores(), (self.real,))]
        while pending:
            folder, ignores, real = pending.pop()
            try:
                with os.scandir(f"{self.root}/{folder}") as scanned:
                    entries = sorted(scanned, key=lambda entry: entry.name)
            except OSError as error:
                self.problem(folder, f"cannot be read: {error.strerror or error}", "make it readable, or leave it out")
                continue
            names = tuple(entry.name for entry in entries)
            if folder and "pyvenv.cfg" in names:
                self.leave(f"{folder}/", "state of a tool")
                continue
            ignores, problems = ignores.within(self.root, folder, names)
            self.found.problems += problems
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                pending += self.visit(path, entry, ignores, real)

    def visit(
        self, path: str, entry: os.DirEntry[str], ignores: Ignores, above: tuple[str, ...]
    ) -> Iterator[tuple[str, Ignores, tuple[str, ...]]]:
        """Takes a file in, or tells the folder that is to be walked next."""
        is_link = entry.is_symlink()
        real = os.path.realpath(entry.path) if is_link else f"{above[-1]}/{entry.name}"
        is_dir = os.path.isdir(real) if is_link else entry.is_dir(follow_symlinks=False)
        if why := self.stays(path, real, ignores, is_dir=is_dir):
            self.leave(f"{path}/" if is_dir else path, why)
        elif not self.is_sound(path, real, is_link=is_link):
            return
        elif is_dir and real in above:
            self.problem(path, f"is a link that leads back to {os.path.relpath(real, self.real)!r}", "remove the link")
        elif is_dir:
            yield path, ignores, (*above, real)
        else:
            self.take(path)

    def stays(self, path: str, real: str, ignores: Ignores, *, is_dir: bool) -> str | None:
        """Why something does not travel. Links are judged by where they lead, too."""
        name = path.rpartition("/")[2]
        below = real[len(self.real) + 1 :] if real.startswith(self.real + os.sep) else ""
        if why := (protected.folder(name) if is_dir else protected.file(name)) or (below and protected.path(below)):
            return why
        if path == FILE:
            return PART_OF_RELEASE  # each environment that it names is a layer
        if self.exclude(path, is_dir=is_dir):
            return EXCLUDED
        if ignores(path, is_dir=is_dir):
            return IGNORED
        return HIDDEN if name.startswith(".") else None

    def is_sound(self, path: str, real: str, *, is_link: bool) -> bool:
        if told := flaw(path):
            self.problem(path, f"has a name that {told}", "rename it, or leave it out")
        elif is_link and not os.path.lexists(real):
            self.problem(path, "is a link to nothing", "mend the link, or remove it")
        elif is_link and os.path.islink(real):
            self.problem(path, "is a link that leads to itself", "remove the link")
        elif is_link and real != self.real and not real.startswith(self.real + os.sep):
            what = f"is a link that leads out of the project, to {real}"
            self.problem(path, what, "copy what it leads to into the project, or leave the link out")
        else:
            return True
        return False

    def count(self, path: str) -> None:
        """Takes in a file that endpoints run by and that the walk passed by."""
        if any(problem.file == path for problem in self.found.problems):
            return
        real = os.path.realpath(f"{self.root}/{path}")
        below = real[len(self.real) + 1 :] if real.startswith(self.real + os.sep) else path
        if protected.path(path) or protected.path(below):
            hint = "give it as a secret; whatever `include` says, it stays on this machine"
            self.problem(path, "counts for an endpoint, and is protected: it never travels", hint)
        elif self.exclude(path, is_dir=False):
            what = "is imported or included by an endpoint, and excluded by 'build.exclude'"
            self.problem(path, what, "take it off one of them")
        elif self.is_sound(path, real, is_link=real != f"{self.real}/{path}"):
            self.take(path)

    def take(self, path: str) -> None:
        try:
            handle = os.open(f"{self.root}/{path}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait
        except OSError as error:
            self.unreadable(path, error)
            return
        try:
            self.read(path, handle)
        except OSError as error:
            self.unreadable(path, error)
        finally:
            os.close(handle)

    def read(self, path: str, handle: int) -> None:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            self.problem(path, "is no regular file", "replace it by a file, or leave it out")
            return
        if status.st_size > MAX_FILE_BYTES:
            self.problem(path, "has more than 8 GiB", "keep it on a volume, and leave it out")
            return
        executable = bool(status.st_mode & stat.S_IXUSR)
        if status.st_size > _SMALL_BYTES:
            sha256 = self.digests.of(path, handle, status)
            self.add(SourceFile(path, sha256, status.st_size, executable, self.root / path))
            return
        data = b"".join(iter(lambda: os.read(handle, _SMALL_BYTES), b""))
        if why := protected.content(path, data):
            self.leave(path, why)
            return
        self.add(SourceFile(path, hashlib.sha256(data).hexdigest(), len(data), executable, data))

    def add(self, file: SourceFile) -> None:
        self.found.files[file.path] = file

    def leave(self, path: str, why: str) -> None:
        self.found.left_out.append(LeftOut(path, why))

    def unreadable(self, path: str, error: OSError) -> None:
        self.problem(path, f"cannot be read: {error.strerror or error}", "make it readable, or leave it out")

    def problem(self, path: str, what: str, hint: str) -> None:
        self.found.problems.append(Problem(what, path, hint=hint))


def _collisions(files: Iterable[str]) -> Iterator[Problem]:
    names = Names()
    for path in files:
        try:
            names.add_file(path)
        except ArchiveError as error:
            yield Problem(error.what, path, hint=error.hint)


def _changed(files: Mapping[str, SourceFile], counted: Mapping[str, str]) -> Iterator[Problem]:
    for path, sha256 in counted.items():
        if path in files and files[path].sha256 != sha256:
            yield Problem("changed while it was built", path, hint="build again")
