"""What a server keeps of its releases: their records, which is current, and how each rollout went."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flashfw.bundle import release as records
from flashfw.bundle.release import Release
from flashfw.cluster.releases.rollout import Failed
from flashfw.cluster.state import Row, State

MIGRATIONS = (
    """
    CREATE TABLE releases (
        id TEXT PRIMARY KEY,
        record TEXT NOT NULL,
        created_at REAL NOT NULL,
        author TEXT NOT NULL
    );
    CREATE TABLE rollouts (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        release TEXT NOT NULL,
        before TEXT,
        author TEXT NOT NULL,
        started_at REAL NOT NULL,
        ended_at REAL,
        state TEXT NOT NULL,
        failure TEXT,
        events TEXT NOT NULL
    );
    CREATE TABLE serving (one INTEGER PRIMARY KEY CHECK (one = 1), release TEXT NOT NULL);
    """,
)

KEPT = 6
"""How many releases stay, the current one among them: those that were rolled out last."""
KEPT_ROLLOUTS = 200
UNWRITTEN = Failed(endpoint="", message="it failed, and why could not be written down")
LEFT = Failed(endpoint="", message="the server ended during the rollout; the release before it is served")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A release as lists show it. `state` is current, kept (it was once), staged or failed."""

    id: str
    created: float
    by: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One thing that happened in a rollout, for people."""

    seq: int
    at: float
    endpoint: str
    step: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A rollout as it was written down; `state` is running, done or failed."""

    number: int
    release: str
    before: str | None
    by: str
    started: float
    ended: float | None
    state: str
    failure: Failed | None
    events: tuple[Told, ...]


class ReleasesStore:
    """The releases of one server in its state. The methods block for the disk; each is done whole or not at all.

    Raises:
        StateError: from each of them, if the state cannot be read or written.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        state.migrate("releases", MIGRATIONS)

    def current(self) -> str | None:
        """The id of the release that is served, also after a restart."""
        rows = self.state.execute("SELECT release FROM serving")
        return rows[0][0] if rows else None

    def release(self, release_id: str) -> Release | None:
        """A release by its id; None if it was never here, or is not kept any more."""
        rows = self.state.execute("SELECT record FROM releases WHERE id = ?", (release_id,))
        return records.loads(rows[0][0]) if rows else None

    def listed(self) -> list[Listed]:
        """All that are kept, the newest first."""
        rows = self.state.execute(_LIST)
        return [Listed(id=row[0], created=row[1], by=row[2], state=row[3]) for row in rows]

    def rollout(self, number: int) -> Noted | None:
        """A rollout by its number."""
        rows = self.state.execute(f"{_ROLLOUT} WHERE number = ?", (number,))
        return _noted(rows[0]) if rows else None

    def before(self) -> str | None:
        """The release that was served before the current one, and is kept."""
        rows = self.state.execute(_BEFORE)
        return rows[0][0] if rows else None

    def begin(self, release: Release, *, by: str, at: float) -> Noted:
        """Note that a rollout of this release has begun; one whose end could not be written has failed by now."""
        record = records.dumps(release)
        with self.state.transaction() as database:
            database.execute(_LEAVE, (at, _failure_json(UNWRITTEN)))
            database.execute(
                "INSERT INTO releases VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING", (release.id, record, at, by)
            )
            number = database.execute(_BEGIN, (release.id, by, at)).fetchone()[0]
        begun = self.rollout(number)
        assert begun is not None
        return begun

    def finish(self, number: int, *, at: float, events: tuple[Told, ...]) -> None:
        """Note that a rollout is done, and its release is the current one: both or neither."""
        with self.state.transaction() as database:
            database.execute(_END, ("done", at, None, _events_json(events), number))
            database.execute("REPLACE INTO serving SELECT 1, release FROM rollouts WHERE number = ?", (number,))

    def fail(self, number: int, failure: Failed, *, at: float, events: tuple[Told, ...]) -> None:
        """Note that a rollout failed; what was current is."""
        self.state.execute(_END, ("failed", at, _failure_json(failure), _events_json(events), number))

    def recover(self, at: float) -> list[int]:
        """Fail the rollouts that a server has left running, and tell which."""
        return [row[0] for row in self.state.execute(_LEAVE, (at, _failure_json(LEFT)))]

    def prune(self) -> list[Release]:
        """Forget what is older than the releases that are kept; the records of those that stay."""
        with self.state.transaction() as database:
            database.execute(_PRUNE, (KEPT,))
            database.execute(
                "DELETE FROM rollouts WHERE state != 'running' AND number <= (SELECT max(number) FROM rollouts) - ?",
                (KEPT_ROLLOUTS,),
            )
            rows = database.execute("SELECT record FROM releases").fetchall()
        return [records.loads(row[0]) for row in rows]

    def clear(self) -> None:
        """Forget every release and rollout."""
        with self.state.transaction() as database:
            for table in ("serving", "rollouts", "releases"):
                database.execute(f"DELETE FROM {table}")


def failure_document(failure: Failed) -> dict[str, Any]:
    """A failure as JSON."""
    return {
        "endpoint": failure.endpoint or None,
        "message": failure.message,
        "traceback": failure.traceback,
        "output": list(failure.output),
    }


def event_document(event: Told) -> dict[str, Any]:
    """What happened, as JSON."""
    return {
        "seq": event.seq,
        "at": event.at,
        "endpoint": event.endpoint,
        "step": event.step,
        "text": event.text,
    }


def _failure_json(failure: Failed) -> str:
    return json.dumps(failure_document(failure))


def _events_json(events: tuple[Told, ...]) -> str:
    return json.dumps([event_document(event) for event in events])


def _noted(row: Row) -> Noted:
    number, release, before, by, started, ended, state, failure, events = row
    return Noted(
        number=number,
        release=release,
        before=before,
        by=by,
        started=started,
        ended=ended,
        state=state,
        failure=_failure(json.loads(failure)) if failure else None,
        events=tuple(Told(**event) for event in json.loads(events)),
    )


def _failure(value: dict[str, Any]) -> Failed:
    return Failed(
        endpoint=value["endpoint"] or "",
        message=value["message"],
        traceback=value["traceback"],
        output=tuple(value["output"]),
    )


_ROLLOUT = "SELECT number, release, before, author, started_at, ended_at, state, failure, events FROM rollouts"
_BEGIN = (
    "INSERT INTO rollouts (release, before, author, started_at, state, events)"
    " VALUES (?, (SELECT release FROM serving), ?, ?, 'running', '[]') RETURNING number"
)
_END = "UPDATE rollouts SET state = ?, ended_at = ?, failure = ?, events = ? WHERE number = ?"
_LEAVE = "UPDATE rollouts SET state = 'failed', ended_at = ?, failure = ? WHERE state = 'running' RETURNING number"
_LIST = """
SELECT releases.id, releases.created_at, releases.author, CASE
    WHEN releases.id = (SELECT release FROM serving) THEN 'current'
    WHEN EXISTS (SELECT 1 FROM rollouts WHERE release = releases.id AND state = 'done') THEN 'kept'
    WHEN EXISTS (SELECT 1 FROM rollouts WHERE release = releases.id AND state = 'running') THEN 'staged'
    ELSE 'failed' END
FROM releases ORDER BY (SELECT max(number) FROM rollouts WHERE release = releases.id) DESC
"""
_BEFORE = """
SELECT release FROM rollouts WHERE state = 'done' AND release IN (SELECT id FROM releases)
    AND release NOT IN (SELECT release FROM serving)
ORDER BY number DESC LIMIT 1
"""
_PRUNE = f"""
DELETE FROM releases WHERE id NOT IN (SELECT release FROM serving)
    AND id NOT IN (SELECT release FROM rollouts WHERE state = 'running')
    AND id NOT IN ({_BEFORE})
    AND id NOT IN (SELECT release FROM rollouts GROUP BY release ORDER BY max(number) DESC LIMIT ?)
"""
