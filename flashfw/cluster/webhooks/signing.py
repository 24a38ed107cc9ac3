"""Signatures of webhooks, by which a receiver knows who sent them (Standard Webhooks 1.0, symmetric)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from pathlib import Path

from flashfw import whole
from flashfw.errors import TargetError

PREFIX = "whsec_"
LENGTHS = range(24, 65)
"""Bytes that a key has; shorter ones are too easily guessed."""


def headers(secret: str, *, message: str, at: float, body: bytes) -> dict[str, str]:
    """The three headers that sign a message; `secret` is `whsec_...`, `at` seconds since the epoch.

    >>> headers("whsec_" + "A" * 32, message="msg_1", at=1.0, body=b"{}")["webhook-signature"]
    'v1,OmiNie3fi8ZEZmbPlxeTQD55tTTpVS4mgkAkQDtSVQg='
    """
    stamp = str(int(at))
    signed = b".".join((message.encode(), stamp.encode(), body))
    digest = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
    return {
        "webhook-id": message,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def key_of(secret: str) -> bytes:
    """The key in a secret.

    Raises:
        ValueError: it is none.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"it is no base64: {error}") from error
    if not secret.startswith(PREFIX) or len(key) not in LENGTHS:
        raise ValueError(f"it is no '{PREFIX}' and {LENGTHS[0]} to {LENGTHS[-1]} bytes in base64")
    return key


def new_secret() -> str:
    """A secret that nobody knows yet."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def kept_secret(file: Path) -> str:
    """The secret in a file, which is made for this user alone if there is none.

    Raises:
        TargetError: it holds something else, or cannot be read or made.
    """
    try:
        return _read(file) if file.exists() else _made(file)
    except (OSError, ValueError) as error:
        hint = f"remove {file}, and a new one is made; whoever verifies webhooks then needs that one"
        raise TargetError(f"no secret for webhooks in {file}: {error}", hint=hint) from error


def _read(file: Path) -> str:
    text = file.read_text(encoding="ascii").strip()
    key_of(text)
    return text


def _made(file: Path) -> str:
    secret = new_secret()
    whole.write(file, f"{secret}\n", mode=0o600)
    return secret
