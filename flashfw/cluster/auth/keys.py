"""What a key is: how its text is made, read and compared. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Literal

KeyScope = Literal["call", "admin"]
SCOPES: tuple[KeyScope, ...] = ("call", "admin")
"""`call` may use functions and look at jobs by their ids; `admin` may do all there is."""

PREFIX = "fw"
_ID_BYTES = 4
_SECRET_BYTES = 32
_TEXT = re.compile(rf"{PREFIX}_(?P<id>[0-9a-f]{{8}})_(?P<secret>[A-Za-z0-9_-]{{43}})")
_ANYWHERE = re.compile(rf"{PREFIX}_[0-9a-f]{{8}}_[A-Za-z0-9_-]{{1,64}}")


@dataclass(frozen=True, slots=True)
class KeyText:
    """The text of a key in its parts: the id may be shown to anybody, the secret to its owner alone."""

    id: str
    secret: str

    def __str__(self) -> str:
        return f"{PREFIX}_{self.id}_{self.secret}"

    def __repr__(self) -> str:  # of a dataclass it would show the secret in every traceback
        return f"KeyText({self.id!r})"

    @property
    def digest(self) -> bytes:
        """What a server keeps of it. 256 random bits need no salt and no slow hash: nobody can guess them."""
        return hashlib.sha256(self.secret.encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as its server knows it; times are seconds since the epoch."""

    id: str
    name: str
    scope: KeyScope
    digest: bytes = field(repr=False)
    created_at: float
    last_used_at: float | None = None
    revoked_at: float | None = None

    def opens(self, text: KeyText) -> bool:
        """Whether this is the key that was given, revoked or not; it takes as long for any answer."""
        return hmac.compare_digest(self.digest, text.digest)


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a request comes from: a key's id and scope. `id` is empty for anybody, and for the user of a `dev`."""

    id: str
    scope: KeyScope

    def may(self, needs: KeyScope) -> bool:
        """Whether its scope covers this one."""
        return self.scope in ("admin", needs)


ANYBODY = Principal("", "call")
"""Who calls what is public."""
OWNER = Principal("", "admin")
"""Who needs no key: the user of a development server."""


def make() -> KeyText:
    """A new key.

    >>> len(str(make()))
    55
    """
    return KeyText(secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES))


def read(text: str) -> KeyText | None:
    """The parts of a key, or None for a text that is none.

    >>> read("fw_00c0ffee_" + "x" * 43)
    KeyText('00c0ffee')
    >>> read("Bearer fw_")
    """
    match = _TEXT.fullmatch(text)
    return KeyText(match["id"], match["secret"]) if match else None


def masked(text: str) -> str:
    """A text in which every key is cut down to its id, for messages that quote what somebody gave.

    >>> masked("key 'fw_00c0ffee_" + "x" * 43 + "' is no id")
    "key 'fw_00c0ffee_...' is no id"
    """
    return _ANYWHERE.sub(lambda match: match[0][: len(PREFIX) + 2 + 2 * _ID_BYTES] + "...", text)


def document(key: Key) -> dict[str, object]:
    """What may be shown of a key, as JSON; times are seconds since the epoch."""
    return {
        "id": key.id,
        "name": key.name,
        "scope": key.scope,
        "created": key.created_at,
        "last_used": key.last_used_at,
        "revoked": key.revoked_at,
    }
