"""The keys of a server in its state, with an index in memory that a request is checked against."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import anyio

from flashfw.cluster.auth import keys
from flashfw.cluster.auth.keys import Key, KeyScope, KeyText
from flashfw.cluster.clock import Clock, sleep
from flashfw.cluster.events import Emit, internal, silent
from flashfw.cluster.state import Row, State
from flashfw.errors import Exit, FlashfwError

MIGRATIONS = (
    """
    CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        scope TEXT NOT NULL,
        digest BLOB NOT NULL,
        created_at REAL NOT NULL,
        last_used_at REAL,
        revoked_at REAL
    );
    """,
)

USED_EVERY_S = 60.0
"""How often it is written when keys were last used: not with each request."""

NAME_LENGTH = 100


class UnknownKey(FlashfwError):
    """No key has that id."""

    exit = Exit.USAGE


class LastAdminKey(FlashfwError):
    """Without this key nobody could administer the server any more."""

    exit = Exit.TARGET


class InvalidKey(FlashfwError):
    """A name or a scope that a key cannot have."""

    exit = Exit.USAGE


class Keys:
    """All keys of one server. `create` and `revoke` hold at once, for this process and any other on the same state.

    Methods but `find` and `run` block for the disk: on the loop `await state.call(keys.create, ...)`.
    """

    def __init__(self, state: State, clock: Clock, emit: Emit = silent) -> None:
        self.state = state
        self._clock = clock
        self._emit = emit
        self._reading = threading.Lock()
        self._version = -1
        self._known: Mapping[str, Key] = {}
        self._used: dict[str, float] = {}
        self._woken: anyio.Event | None = None
        state.migrate("keys", MIGRATIONS)

    def create(self, name: str, scope: KeyScope) -> tuple[Key, KeyText]:
        """A new key, and its text, which nobody can tell again.

        Raises:
            InvalidKey: the name is empty, too long, or holds control characters; the scope is none.
            StateError: it cannot be kept.
        """
        _check(name, scope)
        text = keys.make()
        key = Key(id=text.id, name=name, scope=scope, digest=text.digest, created_at=self._clock.now())
        self.state.execute(
            "INSERT INTO keys (id, name, scope, digest, created_at) VALUES (?, ?, ?, ?, ?)",
            (key.id, key.name, key.scope, key.digest, key.created_at),
        )
        return key, text

    def all(self) -> list[Key]:
        """Every key there ever was, the newest first.

        Raises:
            StateError: they cannot be read.
        """
        rows = self.state.execute(f"{_SELECT} ORDER BY created_at DESC, id")
        return [_key(row, self._used) for row in rows]

    def revoke(self, key_id: str, *, force: bool = False) -> Key:
        """Let a key open nothing any more; one that was revoked stays so. With `force` the last admin key, too.

        Raises:
            UnknownKey: there is none of that id.
            LastAdminKey: it is the only one with the scope `admin`.
            StateError: it cannot be written.
        """
        with self.state.transaction() as database:
            row = database.execute(f"{_SELECT} WHERE id = ?", (key_id,)).fetchone()
            if row is None:
                raise UnknownKey(f"there is no key {keys.masked(key_id)!r}", hint="`flashfw key list` shows their ids")
            key = _key(row, self._used)
            if key.revoked_at is not None:
                return key
            others = "SELECT 1 FROM keys WHERE scope = 'admin' AND revoked_at IS NULL AND id != ? LIMIT 1"
            if key.scope == "admin" and not force and database.execute(others, (key_id,)).fetchone() is None:
                raise LastAdminKey(
                    f"{key.name!r} ({key.id}) is the last admin key: nobody could administer this server without it",
                    hint="make another one first; on the server's machine: flashfw key revoke --data FOLDER --force ID",
                )
            database.execute("UPDATE keys SET revoked_at = ? WHERE id = ?", (self._clock.now(), key_id))
            return _key(database.execute(f"{_SELECT} WHERE id = ?", (key_id,)).fetchone(), self._used)

    def is_empty(self) -> bool:
        """Whether no key was ever made: a server's first start."""
        return not self.state.execute("SELECT 1 FROM keys LIMIT 1")

    def find(self, key_id: str) -> Key | None:
        """The key of that id as it is at this moment, whoever changed it; for the loop.

        Raises:
            StateError: it cannot be told whether the key still holds.
        """
        with self._reading:
            if (version := self.state.version()) != self._version:
                self._known = {key.id: key for row in self.state.peek(_SELECT) if (key := _key(row, {}))}
                self._version = version
            return self._known.get(key_id)

    def note_use(self, key: Key) -> None:
        """Remember that a request came with this key; it is written within a minute."""
        self._used[key.id] = self._clock.now()
        if self._woken is not None:
            self._woken.set()

    async def run(self) -> None:
        """Write down when keys were last used, now and then, and at the end, when it is cancelled."""
        try:
            while True:
                self._woken = anyio.Event()
                if not self._used:
                    await self._woken.wait()
                await sleep(self._clock, USED_EVERY_S)
                await self._flush()
        finally:
            with anyio.CancelScope(shield=True):
                await self._flush()

    async def _flush(self) -> None:
        try:
            await self.state.call(self.flush)
        except FlashfwError as error:  # a full disk; that keys were used is no reason to stop serving
            self._emit(internal("noting the use of keys", error))

    def flush(self) -> None:
        """Write down when keys were last used.

        Raises:
            StateError: it cannot be written.
        """
        used = dict(self._used)
        if not used:
            return
        with self.state.transaction() as database:
            database.executemany(
                "UPDATE keys SET last_used_at = max(ifnull(last_used_at, 0), ?) WHERE id = ?",
                [(at, key_id) for key_id, at in used.items()],
            )
        for key_id, at in used.items():
            if self._used.get(key_id) == at:
                del self._used[key_id]


_SELECT = "SELECT id, name, scope, digest, created_at, last_used_at, revoked_at FROM keys"


def _key(row: Row, used: Mapping[str, float]) -> Key:
    key_id, name, scope, digest, created_at, last_used_at, revoked_at = row
    return Key(
        id=key_id,
        name=name,
        scope=scope,
        digest=digest,
        created_at=created_at,
        last_used_at=used.get(key_id, last_used_at),
        revoked_at=revoked_at,
    )


def _check(name: str, scope: str) -> None:
    if not name.strip() or len(name) > NAME_LENGTH or not name.isprintable():
        raise InvalidKey(
            f"a key cannot be named {keys.masked(name)[:NAME_LENGTH]!r}",
            hint=f"name it by who has it, such as 'ci' or 'anna laptop', in at most {NAME_LENGTH} characters",
        )
    if scope not in keys.SCOPES:
        raise InvalidKey(f"{keys.masked(scope)[:NAME_LENGTH]!r} is no scope", hint=f"it is {' or '.join(keys.SCOPES)}")
