"""Where a server may send requests that its callers ask for: to the public internet, never into its own network."""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from flashfw.errors import UsageError

MAX_URL = 2048

_TRANSLATED = tuple(map(IPv6Network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")))
"""Addresses that hold an IPv4 address, to which somebody on the way may pass them on."""
_NUMBERS = re.compile(r"[0-9a-fx.]+", re.IGNORECASE)


def is_public(address: str, *, allow_loopback: bool = False) -> bool:
    """Whether an IP address may be anybody's: not private, loopback, link-local, multicast, reserved, or unspecified.

    With `allow_loopback` this machine counts too.

    >>> [is_public(one) for one in ("1.1.1.1", "10.0.0.1", "169.254.169.254", "::ffff:1.1.1.1")]
    [True, False, False, False]
    """
    found = ip_address(address.partition("%")[0])
    if found.is_loopback:
        return allow_loopback
    if isinstance(found, IPv6Address) and (found.ipv4_mapped or any(found in net for net in _TRANSLATED)):
        return False
    special = found.is_multicast or found.is_reserved or found.is_unspecified or found.is_link_local
    return found.is_global and not special


def check_url(url: str, *, allow_loopback: bool) -> None:
    """Refuse what can be no webhook, before a job is accepted. Names are looked up when it is called.

    With `allow_loopback` it may be of this machine, as in `dev`.

    Raises:
        UsageError: it is no http or https URL with a host, holds a password, is too long, or leads inside.

    >>> check_url("https://example.com/done?job=1", allow_loopback=False)
    """
    if len(url) > MAX_URL:
        raise UsageError(f"a webhook has at most {MAX_URL} characters")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise UsageError("a URL holds printable ASCII without spaces")
    parts, port = _split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("a webhook is an http or https URL with a host")
    if "@" in parts.netloc:
        raise UsageError("a webhook's URL may hold no user or password")
    if port == 0:
        raise UsageError("there is no port 0")
    _check_host(parts.hostname, allow_loopback)


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError as error:
        raise UsageError(f"it is no URL: {error}") from error


def _check_host(host: str, allow_loopback: bool) -> None:
    literal = _literal(host)
    if literal is not None and not is_public(str(literal), allow_loopback=allow_loopback):
        raise UsageError(f"{host} is no address of the public internet")
    name = host.removesuffix(".")
    if not allow_loopback and (name == "localhost" or name.endswith(".localhost")):
        raise UsageError(f"{host} is this machine")


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is, also in the forms that only the C library reads (`127.1`, `0x7f000001`)."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    if not _NUMBERS.fullmatch(host):
        return None
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None
