"""A secret's value to what is kept of it and back, by a key that lies in a file of its own."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from flashfw import whole
from flashfw.errors import Exit, FlashfwError

FILE = "secret.key"
"""Its name in a server's data directory, unless another place is given."""

_KEY_BYTES = 32
_NONCE_BYTES = 12


class SecretKeyError(FlashfwError):
    """The key file of the secrets is missing, unreadable, or not theirs; they are left as they are."""

    exit = Exit.TARGET


class Seal:
    """Encrypts and decrypts by AES-256-GCM. A value is bound to its name: under another one it does not open.

    >>> seal = Seal(bytes(32))
    >>> seal.open("TOKEN", seal.close("TOKEN", "hunter22"))
    'hunter22'
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.id = hashlib.sha256(b"flashfw secret key " + key).hexdigest()[:16]

    def close(self, name: str, value: str) -> bytes:
        """The value, encrypted; another result each time."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value.encode(), name.encode())

    def open(self, name: str, sealed: bytes) -> str:
        """The value.

        Raises:
            SecretKeyError: it was encrypted by another key, for another name, or was changed.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode()).decode()
        except (InvalidTag, ValueError):
            raise SecretKeyError(
                f"the secret {name} cannot be decrypted: it was damaged", hint=f"set it anew: flashfw secret set {name}"
            ) from None


def load(path: Path) -> Seal | None:
    """The seal whose key is in this file, or None if there is no such file.

    Raises:
        SecretKeyError: it cannot be read, or holds no key.
    """
    try:
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SecretKeyError(f"the key file {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise _no_key(path) from None
    try:
        key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise _no_key(path) from None
    if len(key) != _KEY_BYTES:
        raise _no_key(path)
    return Seal(key)


def make(path: Path) -> Seal:
    """A new key in a new file, for its owner alone; it is on the disk before anything is encrypted with it.

    Raises:
        SecretKeyError: the file cannot be made, or is there already.
    """
    key = secrets.token_bytes(_KEY_BYTES)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.urlsafe_b64encode(key) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        whole.sync(path.parent)
    except OSError as error:
        raise SecretKeyError(f"the key file {path} cannot be made: {error.strerror or error}") from error
    return Seal(key)


def _no_key(path: Path) -> SecretKeyError:
    return SecretKeyError(
        f"the key file {path} holds no key: 32 bytes as base64 on one line",
        hint="put the right file in its place; it was made at the server's first start",
    )
