"""The data directory of a server: made, claimed, recognised, and brought to the format of this flashfw."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

from flashfw import whole
from flashfw.cluster import claim
from flashfw.cluster.claim import Claimed
from flashfw.errors import FlashfwError, TargetError

RECORD = "server.json"
NAME = "serving"
"""Of the files that say who serves: `serving.lock`, `serving.json`."""

Step = Callable[[Path], None]

STEPS: Sequence[Step] = ()
"""What brings a directory from format 1 to 2, from 2 to 3 and so on."""

FORMAT = 1 + len(STEPS)
STATE = "state.sqlite"
DATABASES = ("jobs.sqlite", STATE)
MADE_LATER = ("jobs.sqlite", "layers")
"""What a server makes at its first start once its state is there."""
LEAVING_S = 20.0
"""How long the gateway of a server that was killed may take to end its calls and its workers."""
ROOM_BYTES = 1 << 20
"""Without so much of free disk there is no use in starting."""
PROBE = ".room"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What `server.json` says: the format of the directory, and whose it is once a release was shipped to it."""

    format: int = FORMAT
    project: str = ""
    environment: str = ""


@contextmanager
def claimed(path: Path, *, pause: Callable[[float], None] = time.sleep) -> Iterator[TextIO]:
    """The directory, made if need be, readable by this user alone, and held by this process while the block runs.

    A server that was killed leaves it as soon as its gateway noticed: that is waited for.

    Raises:
        TargetError: another server holds it, it is no data directory, or it cannot be written.
    """
    prepare(path)
    with ExitStack() as held:
        try:
            lock = held.enter_context(claim.claimed(path, NAME, leaving_s=LEAVING_S, pause=pause))
        except claim.InUse as error:
            raise TargetError(
                f"{path} is served already {error}", hint="use that server, stop it first, or choose another --data"
            ) from None
        except OSError as error:
            raise _unusable(path, error) from error
        yield lock


def prepare(path: Path) -> None:
    """Make the directory if there is none, and see that it can be one of ours.

    Raises:
        TargetError: it is something else, of a newer flashfw, another user's, or cannot be written.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (path / RECORD).exists():
            _check_empty(path)
        path.chmod(0o700)
        _check_room(path)
        if not (path / RECORD).exists():
            _write(path, Record())
    except OSError as error:
        raise _unusable(path, error) from error
    check(path)
    _check_state(path)


def check(path: Path) -> Record:
    """The directory's record, if this flashfw can serve it.

    Raises:
        TargetError: a newer flashfw wrote it, or it is damaged.
    """
    record = read(path)
    if record.format > FORMAT:
        raise TargetError(
            f"a newer flashfw wrote {path}: it has format {record.format}, and this one knows up to {FORMAT}",
            hint="use that flashfw, or another --data",
        )
    return record


def read(path: Path) -> Record:
    """What the directory says of itself.

    Raises:
        TargetError: it cannot be read, or is damaged.
    """
    file = path / RECORD
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        record = Record(
            format=value["format"], project=value.get("project") or "", environment=value.get("environment") or ""
        )
        if (
            type(record.format) is not int
            or record.format < 1
            or not isinstance(record.project + record.environment, str)
        ):
            raise ValueError("it holds other values")
    except OSError as error:
        raise TargetError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TargetError(f"{file} is damaged", hint="restore it from a backup, or serve another --data") from error
    return record


def migrate(path: Path, *, steps: Sequence[Step] = STEPS) -> Path | None:
    """Bring a directory of an older flashfw to this one's format; where its backup lies, None if nothing was to do.

    The databases and the record are copied first; a step that fails leaves the directory with the format it had
    reached, and the copy.

    Raises:
        TargetError: a step failed, or there is no room for the backup.
    """
    record, newest = read(path), 1 + len(steps)
    if record.format >= newest:
        return None
    backup = path / f"backup-format-{record.format}"
    try:
        _back_up(path, backup)
        for number in range(record.format, newest):
            steps[number - 1](path)
            _write(path, replace(read(path), format=number + 1))
    except (OSError, sqlite3.Error, FlashfwError) as error:
        raise TargetError(
            f"{path} cannot be brought from format {record.format} to {newest}: {error}",
            hint=f"what it was before is in {backup}, and the flashfw before serves it",
        ) from error
    return backup


def bind(path: Path, project: str, environment: str) -> None:
    """Say for good which project this directory is of, in which environment.

    Raises:
        TargetError: it is another one's, or cannot be written.
    """
    record = read(path)
    if (record.project, record.environment) == (project, environment):
        return
    if record.project:
        raise TargetError(
            f"{path} is of {record.project}/{record.environment}, not of {project}/{environment}",
            hint="one server is one project in one environment: serve another --data",
        )
    try:
        _write(path, replace(record, project=project, environment=environment))
    except OSError as error:
        raise _unusable(path, error) from error


def publish(path: Path, url: str) -> None:
    """Tell other commands of this user where the server of this process is.

    Raises:
        TargetError: the directory cannot be written.
    """
    try:
        claim.publish(path, NAME, Claimed(url, os.getpid()))
    except OSError as error:
        raise _unusable(path, error) from error


def _write(path: Path, record: Record) -> None:
    whole.write(path / RECORD, json.dumps(asdict(record), indent=2), durable=True)


def _back_up(path: Path, backup: Path) -> None:
    """Databases by SQLite's own copy: a plain one would lack what is in the write-ahead log."""
    if backup.exists():  # of a try before, which did not get through
        return
    aside = path / f"{backup.name}.new"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    shutil.copy2(path / RECORD, aside)
    for name in DATABASES:
        if (path / name).exists():
            with closing(sqlite3.connect(path / name)) as source, closing(sqlite3.connect(aside / name)) as target:
                source.backup(target)
            (aside / name).chmod(0o600)
    aside.replace(backup)


def _check_empty(path: Path) -> None:
    """Nothing is there but what a disk has of itself, or a first start that was killed has left."""
    names = sorted(entry.name for entry in path.iterdir())
    if found := [name for name in names if name not in ("lost+found", PROBE) and not name.startswith(whole.ASIDE)]:
        raise TargetError(
            f"{path} is no data directory of flashfw: it has no {RECORD}, but {found[0]!r}",
            hint="choose a new or an empty folder with --data",
        )


def _check_state(path: Path) -> None:
    """A folder that has served and lost its state would be taken for a new one: without keys, secrets, releases."""
    file = path / STATE
    if (file.exists() and file.stat().st_size) or not any((path / name).exists() for name in MADE_LATER):
        return
    raise TargetError(
        f"{file} is {'empty' if file.exists() else 'missing'}, and this folder has served before: keys, secrets and "
        "releases are in it",
        hint="restore it from a backup, or serve another --data",
    )


def _check_room(path: Path) -> None:
    """A disk without room is told before anything starts, by its own words: a file that was really written."""
    probe = path / PROBE
    try:
        with probe.open("wb") as file:  # which writes all of it: the system may take a part, and say no to the rest
            file.write(bytes(ROOM_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)


def _unusable(path: Path, error: OSError) -> TargetError:
    what = f"cannot keep the server's data in {path}: {error.strerror or error}"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return TargetError(f"{what}", hint="choose a folder with --data")
    if path.exists() and (owner := path.stat().st_uid) != os.geteuid():
        return TargetError(f"{what}; it belongs to user {owner}", hint=f"start the server as user {owner}")
    return TargetError(what, hint="choose another folder with --data, or make room and leave to write there")
