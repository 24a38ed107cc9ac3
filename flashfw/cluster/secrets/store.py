"""The secrets of a server, sealed in its state, and their values for the workers that start."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, ValuesView
from dataclasses import dataclass
from pathlib import Path

from flashfw.cluster.clock import Clock
from flashfw.cluster.secrets import sealing
from flashfw.cluster.secrets.sealing import Seal, SecretKeyError
from flashfw.cluster.state import State
from flashfw.errors import Exit, FlashfwError
from flashfw.manifest import Manifest

MIGRATIONS = (
    """
    CREATE TABLE secrets (
        name TEXT PRIMARY KEY,
        sealed BLOB NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL
    );
    CREATE TABLE secret_key (id TEXT NOT NULL);
    """,
)

NAME_LENGTH = 100
VALUE_BYTES = 64 * 1024
"""Linux takes at most 128 KiB per variable, its name included."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class InvalidSecret(FlashfwError):
    """A name or a value that a secret cannot have. The message never holds the value."""

    exit = Exit.USAGE


class UnknownSecret(FlashfwError):
    """No secret has that name."""

    exit = Exit.USAGE


@dataclass(frozen=True, slots=True)
class Secret:
    """What may be shown of a secret; times are seconds since the epoch."""

    name: str
    created_at: float
    updated_at: float


class _Values(Mapping[str, str]):
    """What is known now. It is put in the place of what was known before, whole: the loop reads it meanwhile."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known

    def __getitem__(self, name: str) -> str:
        return self.known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)

    def values(self) -> ValuesView[str]:
        return self.known.values()

    def __repr__(self) -> str:
        return f"<values of {', '.join(self.known) or 'no secrets'}>"


class Secrets:
    """All secrets of one server. `values` is what workers are started with: always what is kept now.

    The methods block for the disk: on the loop `await state.call(secrets.set, ...)`.

    Raises:
        SecretKeyError: the key file is missing though secrets were encrypted with it, or is not theirs. Nothing is
            changed then: with the right file all is as before.
    """

    def __init__(self, state: State, key_file: Path, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._writing = threading.Lock()  # so that values are in memory what the last writer kept
        state.migrate("secrets", MIGRATIONS)
        self._seal = self._unlocked(key_file)
        rows = state.execute("SELECT name, sealed FROM secrets")
        self._values = _Values({name: self._seal.open(name, sealed) for name, sealed in rows})

    @property
    def values(self) -> Mapping[str, str]:
        """Values by names; a view that follows what is set and removed."""
        return self._values

    def all(self) -> list[Secret]:
        """What may be shown of each, by name.

        Raises:
            StateError: they cannot be read.
        """
        return [Secret(*row) for row in self._state.execute(f"{_SELECT} ORDER BY name")]

    def set(self, name: str, value: str) -> bool:
        """Keep a value; whether it is another one than before.

        Raises:
            InvalidSecret: the name is no name of a variable, or the value is empty, too large or holds a NUL.
            StateError: it cannot be kept; the value before it stands.
        """
        check(name, value)
        with self._writing:
            if self._values.get(name) == value:
                return False
            now = self._clock.now()
            self._state.execute(_SET, (name, self._seal.close(name, value), now, now))
            self._values.known = {**self._values.known, name: value}
        return True

    def remove(self, name: str) -> None:
        """Forget a secret.

        Raises:
            UnknownSecret: there is none of that name.
            StateError: it cannot be removed.
        """
        with self._writing:
            if not self._state.execute("DELETE FROM secrets WHERE name = ? RETURNING name", (name,)):
                raise UnknownSecret(f"there is no secret {name[:NAME_LENGTH]!r}", hint=_known(self._values))
            self._values.known = {known: value for known, value in self._values.known.items() if known != name}

    def clear(self) -> None:
        """Forget all of them: the environment that they belong to is removed.

        Raises:
            StateError: they cannot be removed.
        """
        with self._writing:
            self._state.execute("DELETE FROM secrets")
            self._values.known = {}

    def _unlocked(self, path: Path) -> Seal:
        kept = [key_id for (key_id,) in self._state.execute("SELECT id FROM secret_key")]
        seal = sealing.load(path)
        if seal is not None and not kept:
            self._remember(seal)
        elif seal is None and not self._is_used():
            seal = sealing.make(path)
            self._remember(seal)
        if seal is None:
            raise SecretKeyError(
                f"the key file {path} is missing, and the secrets of this server are encrypted with it",
                hint="put it back from its backup; docs/keys.md says how to begin anew without them",
            )
        if kept and seal.id not in kept:
            if self._is_used():
                raise SecretKeyError(
                    f"the key file {path} is not the one that this server's secrets were encrypted with",
                    hint="put the right file in its place; the secrets are untouched",
                )
            self._remember(seal)
        return seal

    def _is_used(self) -> bool:
        return bool(self._state.execute("SELECT 1 FROM secrets LIMIT 1"))

    def _remember(self, seal: Seal) -> None:
        with self._state.transaction() as database:
            database.execute("DELETE FROM secret_key")
            database.execute("INSERT INTO secret_key (id) VALUES (?)", (seal.id,))


def check(name: str, value: str) -> None:
    """Refuse what cannot be a secret: every fault of it at once.

    Raises:
        InvalidSecret: the name is no name of a variable, or the value is empty, too large or holds a NUL.
    """
    faults = []
    if len(name) > NAME_LENGTH or not _NAME.fullmatch(name):
        faults.append(f"{name[:NAME_LENGTH]!r} is no name of a variable: letters, digits and _, as in HF_TOKEN")
    if not value:
        faults.append("the value is empty")
    if (size := len(value.encode("utf-8", "surrogatepass"))) > VALUE_BYTES:
        faults.append(f"the value has {size} bytes, and at most {VALUE_BYTES} fit into a variable")
    if "\0" in value:
        faults.append("the value holds a NUL, which no variable can")
    if any("\ud800" <= char <= "\udfff" for char in value):
        faults.append("the value is no text in UTF-8")
    if faults:
        raise InvalidSecret("; ".join(faults))


def users(manifest: Manifest, names: Collection[str]) -> list[str]:
    """The endpoints of a manifest that need any of these secrets, by id."""
    return sorted(
        endpoint.id for endpoint in manifest.endpoints if any(secret.value in names for secret in endpoint.secrets)
    )


def missing(manifest: Manifest, known: Collection[str]) -> dict[str, list[str]]:
    """The secrets that a manifest needs and that are not `known`, each with the endpoints that need it."""
    needed = {secret.value for endpoint in manifest.endpoints for secret in endpoint.secrets}
    return {name: users(manifest, [name]) for name in sorted(needed - set(known))}


def _known(names: Iterable[str]) -> str:
    return f"the server has {', '.join(sorted(names))}" if names else "there are none yet"


_SET = (
    "INSERT INTO secrets (name, sealed, created_at, updated_at) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, updated_at = excluded.updated_at"
)
_SELECT = "SELECT name, created_at, updated_at FROM secrets"
