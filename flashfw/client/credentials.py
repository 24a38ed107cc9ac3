"""The keys that a user keeps, each for one server: a file in the user's own folder, readable by nobody else."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from flashfw import whole
from flashfw.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "credentials.toml"

_PORTS = {"http": 80, "https": 443}


class CredentialsError(UsageError):
    """The file with the keys cannot be read, written, or trusted. The message never holds a key."""


def path() -> Path:
    """Where the keys are kept."""
    return Path(platformdirs.user_config_dir("flashfw")) / FILE


def origin(url: str) -> str:
    """What a key is kept for: scheme, host and port; a key for one of them goes to no other.

    >>> origin("HTTPS://GPU.example.com/x"), origin("http://127.0.0.1:8899/"), origin("https://[::1]:443")
    ('https://gpu.example.com', 'http://127.0.0.1:8899', 'https://[::1]')

    Raises:
        UsageError: it is no address of a server.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        host, port = "", None
    scheme = parts.scheme.lower() if host else ""
    if scheme not in _PORTS:
        raise UsageError("that is no address of a server", hint="write it as https://gpu.example.com")
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" + ("" if port in (None, _PORTS[scheme]) else f":{port}")


def read(url: str, *, at: Path | None = None) -> str | None:
    """The key that is kept for a server, or None.

    Raises:
        CredentialsError: the file cannot be read, is damaged, or others may read it.
    """
    entry = _load(at or path()).get(origin(url))
    key = entry.get("key") if isinstance(entry, dict) else None
    return key if isinstance(key, str) and key.isascii() and key.isprintable() else None


def save(url: str, key: str, *, at: Path | None = None) -> Path:
    """Keep a key for a server, in place of the one before; the file that it is in.

    Raises:
        CredentialsError: the file cannot be written, or what is there is damaged, and left as it is.
    """
    place = at or path()
    with _held(place):
        _store(place, {**_load(place), origin(url): {"key": key}})
    return place


def forget(url: str, *, at: Path | None = None) -> bool:
    """Keep no key for a server any more; whether there was one.

    Raises:
        CredentialsError: as `save`.
    """
    place = at or path()
    if not place.exists():
        return False
    with _held(place):
        kept = _load(place)
        was_there = kept.pop(origin(url), None) is not None
        if was_there:
            _store(place, kept)
    return was_there


def is_exposed(url: str) -> bool:
    """Whether a key that is sent there can be read by others on the way: plain http, and not to this machine.

    >>> [is_exposed(url) for url in ("http://10.0.0.1:8899", "https://10.0.0.1", "http://127.0.0.1", "http://[::1]")]
    [True, False, False, False]
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if parts.scheme.lower() != "http" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def _load(place: Path) -> dict[str, Any]:
    try:
        with place.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise CredentialsError(f"others may read the keys in {place}", hint=f"chmod 600 {place}")
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CredentialsError(f"the keys in {place} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        where = str(error).rpartition("(")[2].rstrip(")") if "(at line" in str(error) else "somewhere"
        hint = "mend it, or remove it and save the keys anew"
        raise CredentialsError(f"{place} is no TOML ({where})", hint=hint) from None


def _store(place: Path, kept: dict[str, Any]) -> None:
    """Write the file anew, whole or not at all."""
    lines = ["# Keys of flashfw servers, by address: `flashfw key save` and `flashfw key forget` write this file.\n"]
    for address, entry in sorted(kept.items()):
        if isinstance(entry, dict) and isinstance(entry.get("key"), str):
            # A JSON string in ASCII is a TOML one.
            lines.append(f"\n[{json.dumps(address)}]\nkey = {json.dumps(entry['key'])}\n")
    try:
        whole.write(place, "".join(lines), mode=0o600, durable=True)
    except OSError as error:
        raise CredentialsError(f"the keys in {place} cannot be written: {error.strerror or error}") from error


@contextmanager
def _held(place: Path) -> Iterator[None]:
    """Let no other command change the file meanwhile."""
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = place.with_name(f"{place.name}.lock").open("w")
    except OSError as error:
        raise CredentialsError(f"the keys in {place} cannot be written: {error.strerror or error}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
