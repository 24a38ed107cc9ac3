"""Who may talk to the server: keeps browsers' foreign pages out of a development server, and strangers out of any."""

from __future__ import annotations

import hmac
import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from starlette.types import Scope

from flashfw.cluster.gateway.answers import refusal
from flashfw.cluster.gateway.bodies import header


class Guard(Protocol):
    """Looks at each request before anything else does."""

    def check(self, scope: Scope, *, public: bool, shared: bool = False) -> None:
        """Let the request pass, or raise. What is `shared` pages of this machine's other servers may call, too.

        Raises:
            Refused: 401 without a key, 403 from a page that may not.
        """
        ...


class LoopbackGuard:
    """For `dev` on this machine: no key, but only loopback `Host` names and no request of a foreign page.

    A page in the user's browser can send requests to 127.0.0.1, and a hostile name can resolve to it
    (DNS rebinding); `Host`, `Origin` and `Sec-Fetch-Site` tell these apart from the user's own. A frontend that
    another server of this machine serves is the user's own, too: what its browser may read, a middleware.py says.
    """

    def check(self, scope: Scope, *, public: bool, shared: bool = False) -> None:
        host = (header(scope, b"host") or b"").decode("latin-1")
        if host and not is_loopback(host):
            raise refusal(403, "host", f"Host {host!r} is not this machine; use 127.0.0.1 or localhost")
        origin = (header(scope, b"origin") or b"").decode("latin-1")
        if origin and not _same_origin(origin, host):
            if not _is_local(origin):
                raise refusal(403, "origin", f"Origin {origin!r} may not call this development server")
            if not shared:
                what = f"Origin {origin!r} may call HTTP endpoints that have a middleware.py alone"
                raise refusal(403, "origin", f"{what}; write one with Starlette's CORSMiddleware in it")
            return
        if header(scope, b"sec-fetch-site") == b"cross-site":
            raise refusal(403, "origin", "a page of another site may not call this development server")


@dataclass(frozen=True, slots=True)
class KeyGuard:
    """For a server that others can reach: a bearer key for all that is not public."""

    key: str

    def check(self, scope: Scope, *, public: bool, shared: bool = False) -> None:
        if public:
            return
        value = (header(scope, b"authorization") or b"").decode("latin-1")
        token = value[7:] if value[:7].lower() == "bearer " else value
        if not hmac.compare_digest(token.encode(), self.key.encode()):
            detail = "invalid api key" if token else "no token provided"
            challenge = (b"www-authenticate", b"Bearer")
            raise refusal(401, "unauthorized", detail, headers=[challenge])


@lru_cache(maxsize=256)  # asked for each request, mostly of the same few hosts
def is_loopback(host: str) -> bool:
    """Whether a Host header, host name or address means this machine itself.

    >>> [is_loopback(host) for host in ("127.0.0.1:8888", "localhost", "[::1]:1", "::1", "a.localhost")]
    [True, True, True, True, True]
    >>> [is_loopback(host) for host in ("evil.example", "me@localhost", "localhost/x")]
    [False, False, False]
    """
    match = _HOST.fullmatch(host)
    name = (match["bracketed"] or match["name"] if match else host).lower()
    if match and (name == "localhost" or name.endswith(".localhost")):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


_HOST = re.compile(r"(\[(?P<bracketed>[0-9a-fA-F:.]+)\]|(?P<name>[0-9a-zA-Z._-]+))(:[0-9]{0,5})?")
"""`host [ ":" port ]` of RFC 9110, without what URLs may have beside it: a browser sends no user, path or escape."""


def _is_local(origin: str) -> bool:
    scheme, _, host = origin.partition("://")
    return scheme.lower() in ("http", "https") and is_loopback(host)


def _same_origin(origin: str, host: str) -> bool:
    return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
