"""Who may talk to the server: keeps browsers' foreign pages out of a development server, and strangers out of any."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from starlette.types import Scope

from flashfw.cluster.auth import keys
from flashfw.cluster.auth.keys import ANYBODY, OWNER, KeyScope, Principal
from flashfw.cluster.auth.store import Keys
from flashfw.cluster.gateway.answers import Refused, refusal
from flashfw.cluster.gateway.bodies import header
from flashfw.cluster.state import StateError

PRINCIPAL = "flashfw.principal"
"""Where the scope of a request that was let through says whom it comes from."""


class Guard(Protocol):
    """Looks at each request before anything else does."""

    def check(self, scope: Scope, *, public: bool, shared: bool = False, needs: KeyScope = "call") -> Principal:
        """Let the request pass and say whom it comes from, or raise.

        What is `public` needs no key. What is `shared` pages of this machine's other servers may call, too.

        Raises:
            Refused: 401 without a key that holds, 403 with one whose scope does not cover `needs`, or from a page that
                may not; 503 where the server cannot tell which keys hold.
        """
        ...

    def holds(self, principal: Principal) -> bool:
        """Whether whom a request came from may still be answered: asked for each further piece of a stream."""
        ...


class LoopbackGuard:
    """For `dev` on this machine: no key, but only loopback `Host` names and no request of a foreign page.

    A page in the user's browser can send requests to 127.0.0.1, and a hostile name can resolve to it
    (DNS rebinding); `Host`, `Origin` and `Sec-Fetch-Site` tell these apart from the user's own. A frontend that
    another server of this machine serves is the user's own, too: what its browser may read, a middleware.py says.
    """

    def check(self, scope: Scope, *, public: bool, shared: bool = False, needs: KeyScope = "call") -> Principal:
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
            return OWNER
        if header(scope, b"sec-fetch-site") == b"cross-site":
            raise refusal(403, "origin", "a page of another site may not call this development server")
        return OWNER

    def holds(self, principal: Principal) -> bool:
        return True


def admit(guard: Guard, scope: Scope, *, public: bool, shared: bool = False, needs: KeyScope = "call") -> Principal:
    """Let a request pass the guard, and note in its scope whom it comes from.

    A key of this server has done its work then and is taken off: the user's code that the request goes to has no use
    for it, and might log it or pass it on.

    Raises:
        Refused: as `Guard.check`.
    """
    principal = guard.check(scope, public=public, shared=shared, needs=needs)
    scope[PRINCIPAL] = principal
    if principal.id:
        scope["headers"] = without_key(scope["headers"])
    return principal


def without_key(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of a request without the key of this server that came with it."""
    return [pair for pair in headers if pair[0] != b"authorization"]


@dataclass(frozen=True, slots=True)
class KeyGuard:
    """For a `dev` that others can reach: its one bearer key for all that is not public."""

    key: str

    def check(self, scope: Scope, *, public: bool, shared: bool = False, needs: KeyScope = "call") -> Principal:
        if public:
            return OWNER
        token = _token(scope)
        if not hmac.compare_digest(token.encode(), self.key.encode()):
            raise _unauthorized("invalid api key" if token else "no token provided")
        return OWNER

    def holds(self, principal: Principal) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class KeysGuard:
    """For a server: a key of its own, not revoked and of the right scope, for all that is not public.

    What is public takes any request, since its `Authorization` may be for the user's own code; one with a key that
    holds is known by it.
    """

    keys: Keys

    def check(self, scope: Scope, *, public: bool, shared: bool = False, needs: KeyScope = "call") -> Principal:
        try:
            principal = self._principal(_token(scope))
        except Refused:
            if not public:
                raise
            return ANYBODY
        if not public and not principal.may(needs):
            what = f"this needs a key with the scope {needs!r}, and {principal.id} has {principal.scope!r}"
            raise refusal(403, "forbidden", what, hint=f"`flashfw key create ENV NAME --scope {needs}` makes one")
        return principal

    def holds(self, principal: Principal) -> bool:
        if not principal.id:
            return True
        try:
            key = self.keys.find(principal.id)
        except StateError:  # it held when the request came; a disk in trouble is no reason to cut every stream
            return True
        return key is not None and key.revoked_at is None

    def _principal(self, token: str) -> Principal:
        if not token:
            raise _unauthorized("no key was given", hint=f"send one as 'Authorization: Bearer fw_...'; {_MADE}")
        given = keys.read(token)
        try:
            key = None if given is None else self.keys.find(given.id)
        except StateError as error:
            again = [(b"retry-after", b"1")]
            raise refusal(503, "store", "the server cannot read its keys now", headers=again) from error
        if given is None or key is None or not key.opens(given):
            raise _unauthorized("this server does not know the key that was given", hint=_MADE)
        if key.revoked_at is not None:
            raise _unauthorized(f"the key {key.id} ({key.name}) was revoked", hint=_MADE)
        self.keys.note_use(key)
        return Principal(key.id, key.scope)


_MADE = "`flashfw key create ENV NAME` makes one, for who has an admin's"


def _token(scope: Scope) -> str:
    value = (header(scope, b"authorization") or b"").decode("latin-1")
    return value[7:].strip() if value[:7].lower() == "bearer " else value


def _unauthorized(message: str, *, hint: str = "") -> Refused:
    more = {"hint": hint} if hint else {}
    return refusal(401, "unauthorized", message, headers=[(b"www-authenticate", b"Bearer")], **more)


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
