"""A server's administration in memory: the same pages over real HTTP as `flashfw serve` has, and no worker anywhere.

Rollouts succeed at once, unless a test holds them (`held`) or says which endpoint does not start (`failing`).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import zstandard

from flashfw.bundle import release as releases
from flashfw.bundle.release import Release
from flashfw.errors import ManifestError

Json = Any


class Refusal(Exception):
    def __init__(self, status: int, reason: str, message: str, **more: Json) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"reason": reason, "message": message, **more}}


@dataclass
class FakeServer:
    """One server. Its fields are what a test may look at and turn."""

    api: int = releases.API
    version: str = "0.1.0"
    pythons: tuple[str, ...] = ()
    keys: dict[str, str] = field(default_factory=lambda: {"fw_admin_x": "admin", "fw_call_x": "call"})
    revoked: set[str] = field(default_factory=set)
    project: str | None = None
    environment: str | None = None
    layers: dict[str, int] = field(default_factory=dict)
    releases: dict[str, dict[str, Json]] = field(default_factory=dict)
    current: str | None = None
    rollouts: list[dict[str, Json]] = field(default_factory=list)
    secrets: dict[str, float] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)
    failing: dict[str, dict[str, Json]] = field(default_factory=dict)
    is_held: bool = False
    is_full: bool = False
    url: str = ""
    requests: list[str] = field(default_factory=list)
    on_request: Callable[[str], object] = lambda request: None

    def __post_init__(self) -> None:
        self.changed = threading.Condition()

    # what tests do

    def release_of(self, release_id: str) -> Release:
        return releases.loads(json.dumps(self.releases[release_id]["release"]))

    def let_go(self) -> None:
        """End the rollout that is held."""
        with self.changed:
            self.is_held = False
            self._finish(self.rollouts[-1])

    # what the pages do

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, key: str | None) -> tuple[int, Json]:
        if path in ("live", "ready"):
            return 200, {"status": "ok"}
        self._admit(key, needs="call" if path == "server" else "admin")
        with self.changed:
            for pattern, handler in _PAGES:
                if found := re.fullmatch(pattern, f"{method} {path}"):
                    given = [unquote(part) for part in found.groups()]
                    status: int
                    status, answer = handler(self, *given, query=query, body=body)
                    return status, answer
        raise Refusal(404, "not_found", f"no page {path}")

    def _admit(self, key: str | None, *, needs: str) -> None:
        if key in self.revoked:
            raise Refusal(401, "unauthorized", "this key was revoked")
        scope = self.keys.get(key or "")
        if scope is None:
            raise Refusal(401, "unauthorized", "a key is needed" if key is None else "this key is unknown")
        if needs == "admin" and scope != "admin":
            raise Refusal(403, "forbidden", "this key may call functions only")

    def _server(self, **_: Json) -> tuple[int, Json]:
        return 200, {
            "flashfw": self.version,
            "api": self.api,
            "project": self.project,
            "environment": self.environment,
            "python": list(self.pythons),
            "platform": "x86_64-manylinux_2_28",
        }

    def _releases(self, **_: Json) -> tuple[int, Json]:
        last = {rollout["release"]: rollout["number"] for rollout in self.rollouts}
        found = sorted(self.releases.values(), key=lambda release: last.get(release["id"], 0), reverse=True)
        listed = [{name: one[name] for name in ("id", "created", "by", "state")} for one in found]
        return 200, {"current": self.current, "releases": listed, "rollout": self._running()}

    def _release(self, release_id: str, **_: Json) -> tuple[int, Json]:
        if release_id not in self.releases:
            raise Refusal(404, "not_found", f"there is no release {release_id!r}")
        return 200, self.releases[release_id]

    def _missing(self, *, body: bytes, **_: Json) -> tuple[int, Json]:
        return 200, {"missing": [digest for digest in json.loads(body)["digests"] if digest not in self.layers]}

    def _put(self, digest: str, *, query: dict[str, str], body: bytes, **_: Json) -> tuple[int, Json]:
        if self.is_full:
            raise Refusal(507, "disk_full", "no space left on device")
        try:
            tar = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read()
        except zstandard.ZstdError as error:
            raise Refusal(422, "layer", f"layer {digest[:12]} is damaged: {error}") from None
        if hashlib.sha256(tar).hexdigest() != digest or len(tar) != int(query["size"]):
            raise Refusal(422, "layer", f"layer {digest[:12]} is damaged: it is not what its digest says")
        self.layers[digest] = len(tar)
        return 201, {}

    def _apply(self, *, body: bytes, **_: Json) -> tuple[int, Json]:
        asked = json.loads(body)
        try:
            release = releases.loads(json.dumps(asked["release"]))
        except ManifestError as error:
            raise Refusal(422, "manifest", str(error)) from None
        self._unchanged(asked["expected"])
        if (self.project or release.manifest.project, self.environment or release.manifest.environment) != (
            release.manifest.project,
            release.manifest.environment,
        ):
            raise Refusal(422, "project", f"this server is {self.project}/{self.environment}")
        if lacking := [layer.digest for layer in release.layers if layer.digest not in self.layers]:
            raise Refusal(422, "layers", f"{len(lacking)} layers are missing", missing=lacking)
        wanted = {secret.value for endpoint in release.manifest.endpoints for secret in endpoint.secrets}
        if lacking := sorted(wanted - self.secrets.keys()):
            raise Refusal(422, "secrets", f"secrets are missing: {', '.join(lacking)}", secrets=lacking)
        going = self._endpoints(self.current) - {endpoint.id for endpoint in release.manifest.endpoints}
        if extra := sorted(going - set(asked["removes"])):
            raise Refusal(409, "removes", f"it would delete {', '.join(extra)}", removes=extra)
        self.project, self.environment = release.manifest.project, release.manifest.environment
        record = {"release": asked["release"], "created": time.time(), "by": asked["by"], "state": "staged"}
        self.releases[release.id] = {"id": release.id, **record}
        return 202, {"rollout": self._begin(release.id, asked["by"])}

    def _rollback(self, *, body: bytes, **_: Json) -> tuple[int, Json]:
        asked = json.loads(body)
        self._unchanged(asked["expected"])
        done = [found["release"] for found in self.rollouts if found["state"] == "done"]
        before = [name for name in done[::-1] if name != self.current]
        to = asked["to"] or (before[0] if before else None)
        if to not in self.releases:
            raise Refusal(
                404, "not_found", f"there is no release {to!r}" if to else "there is no release before this one"
            )
        return 202, {"rollout": self._begin(to, asked["by"])}

    def _rollout(self, number: str, *, query: dict[str, str], **_: Json) -> tuple[int, Json]:
        if not 1 <= int(number) <= len(self.rollouts):
            raise Refusal(404, "not_found", f"there is no rollout {number}")
        found, after = self.rollouts[int(number) - 1], int(query.get("after", 0))
        self.changed.wait_for(
            lambda: found["state"] != "running" or found["events"][after:], timeout=float(query.get("wait", 0))
        )
        return 200, {**found, "events": found["events"][after:]}

    def _remove(self, *, body: bytes, **_: Json) -> tuple[int, Json]:
        confirm = json.loads(body)["confirm"]
        if confirm != f"{self.project}/{self.environment}":
            raise Refusal(409, "confirm", f"this server is {self.project}/{self.environment}, not {confirm}")
        self.releases.clear()
        self.secrets.clear()
        self.jobs.clear()
        self.current = None
        return 200, {}

    def _secrets(self, **_: Json) -> tuple[int, Json]:
        return 200, {"secrets": [{"name": name, "created": at} for name, at in self.secrets.items()]}

    def _status(self, **_: Json) -> tuple[int, Json]:
        found = self.releases.get(self.current or "")
        release = found and {"id": found["id"], "created": found["created"], "age_s": 1.0, "by": found["by"]}
        endpoints = []
        for endpoint in self.release_of(self.current).manifest.endpoints if self.current else ():
            names = [function.id for function in endpoint.functions if function.kind == "job"]
            queues = [{"function": name, **_QUEUE, "claimable": self.jobs.get(name, 0)} for name in names]
            endpoints.append({**_STANDING, "id": endpoint.id, "fingerprint": endpoint.fingerprint, "queues": queues})
        return 200, {
            "project": self.project or "",
            "environment": self.environment or "",
            "release": release,
            "endpoints": endpoints,
        }

    def _logs(self, *, query: dict[str, str], **_: Json) -> tuple[int, Json]:
        line = {"at": 1.0, "endpoint": query.get("endpoint", "a"), "worker": "w", "job": None, "stream": "stdout"}
        return 200, [{**line, "text": "one"}, {**line, "text": "two"}]

    def _endpoints(self, release_id: str | None) -> set[str]:
        return {endpoint.id for endpoint in self.release_of(release_id).manifest.endpoints} if release_id else set()

    def _unchanged(self, expected: str | None) -> None:
        if running := self._running():
            more = {"rollout": running["number"], "release": running["release"], "by": running["by"]}
            raise Refusal(409, "busy", f"a rollout of {running['by']} runs", since=running["started"], **more)
        if expected != self.current:
            found = self.releases.get(self.current or "", {"by": "", "created": 0.0})
            more = {"by": found["by"], "created": found["created"]}
            raise Refusal(409, "conflict", f"release {self.current} is current by now", current=self.current, **more)

    def _running(self) -> dict[str, Json] | None:
        last = self.rollouts[-1] if self.rollouts else None
        return {**last, "events": []} if last and last["state"] == "running" else None

    def _begin(self, release_id: str, by: str) -> int:
        rollout: dict[str, Json] = {
            "number": len(self.rollouts) + 1,
            "release": release_id,
            "from": self.current,
            "by": by,
            "state": "running",
            "started": time.time(),
            "events": [],
            "failure": None,
        }
        self.rollouts.append(rollout)
        for endpoint in sorted(self._endpoints(release_id)):
            self._say(rollout, endpoint, "starting", f"{endpoint}: starting 1 worker of {release_id}")
        if not self.is_held:
            self._finish(rollout)
        return len(self.rollouts)

    def _finish(self, rollout: dict[str, Json]) -> None:
        broken = sorted(self._endpoints(rollout["release"]) & self.failing.keys())
        if broken:
            rollout["state"], rollout["failure"] = "failed", {"endpoint": broken[0], **self.failing[broken[0]]}
        else:
            self._say(rollout, "", "switched", "switched")
            rollout["state"], self.current = "done", rollout["release"]
            for found in self.releases.values():
                found["state"] = "current" if found["id"] == self.current else "kept"
        self.changed.notify_all()

    def _say(self, rollout: dict[str, Json], endpoint: str, step: str, text: str) -> None:
        event = {"seq": len(rollout["events"]) + 1, "at": time.time(), "endpoint": endpoint, "step": step, "text": text}
        rollout["events"].append(event)
        self.changed.notify_all()


_QUEUE = {"parked": 0, "low": 0, "running": 0, "completed": 0, "failed": 0, "retried": 0}
_STANDING: dict[str, Json] = {
    "kind": "job",
    "queued": 0,
    "parked": 0,
    "scaling": "",
    "scaled": None,
    "failure": None,
    "retry_in_s": None,
    "workers_min": 0,
    "workers_max": 3,
    "workers": [],
}

_PAGES: tuple[tuple[str, Any], ...] = (
    ("GET server", FakeServer._server),
    ("GET releases", FakeServer._releases),
    (r"GET releases/([^/]+)", FakeServer._release),
    ("POST releases", FakeServer._apply),
    ("POST layers/missing", FakeServer._missing),
    (r"PUT layers/([^/]+)", FakeServer._put),
    (r"GET rollouts/(\d+)", FakeServer._rollout),
    ("POST rollback", FakeServer._rollback),
    ("POST remove", FakeServer._remove),
    ("GET secrets", FakeServer._secrets),
    ("GET status", FakeServer._status),
    ("GET logs", FakeServer._logs),
)


@contextmanager
def serving(server: FakeServer) -> Iterator[FakeServer]:
    """The server on a port of its own, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # head and body in one packet

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            key = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
            server.requests.append(f"{self.command} {parts.path}")
            try:
                server.on_request(server.requests[-1])
                path = parts.path.removeprefix("/_flashfw/")
                status, answer = server.answer(self.command, path, query, body, key)
            except Refusal as refusal:
                status, answer = refusal.status, refusal.body
            lines = answer if isinstance(answer, list) else [answer]
            data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _answer

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        server.url = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
