"""The target `cluster`: a server of flashfw's own, by its administration over HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from flashfw.bundle import release as releases
from flashfw.bundle.release import Layer, Release
from flashfw.client import reaching
from flashfw.errors import TargetError
from flashfw.ship import wire
from flashfw.ship.plan import speaks
from flashfw.ship.refusals import refused, stranger, unreachable
from flashfw.ship.target import Host, Progress, Rollout, Shipped, Situation, UnansweredError

Json = Any

UPLOADS_AT_ONCE = 4
PIECE_BYTES = 1 << 18
TRIES_PAUSES_S = (0.2, 1.0, 3.0)
"""Before each further try of what may be asked twice: a server may be starting anew."""

_TIMEOUT = httpx.Timeout(30.0, connect=5.0, write=60.0)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Cluster:
    """One server. Lives as long as its connections; a context manager.

    `cafile` is a PEM file of authorities to trust beside those of the machine. The key goes to this server alone:
    redirects are not followed.
    """

    def __init__(self, name: str, url: str, key: str | None = None, *, cafile: Path | None = None) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=_TIMEOUT,
            limits=httpx.Limits(max_connections=UPLOADS_AT_ONCE + 2),
            trust_env=httpx.URL(self.url).host not in _LOOPBACK,
            verify=reaching.tls(self.url, cafile),
        )

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; what the server accepted goes on."""
        self._http.close()

    def host(self) -> Host:
        found = wire.read(self.url, wire.host, self._get("server"))
        if why := speaks(found):
            older = found.api < releases.API
            raise TargetError(why, hint=f"update flashfw {'on the server' if older else 'here'}")
        return found

    def situation(self) -> Situation:
        host = self.host()
        index = self._get("releases")
        current = self._current(index)
        running = index.get("rollout")
        return Situation(
            host=host,
            current=current,
            release=self.release(current.id) if current else None,
            rollout=wire.read(self.url, wire.rollout, running) if running else None,
            jobs=wire.read(self.url, wire.jobs, self.status()),
            secrets=wire.read(self.url, _secrets, self._get("secrets")),
        )

    def running(self) -> Rollout | None:
        """The rollout that goes on there now."""
        found = self._get("releases").get("rollout")
        return wire.read(self.url, wire.rollout, found) if found else None

    def releases(self) -> tuple[Shipped, ...]:
        return wire.read(self.url, _shipped, self._get("releases"))

    def release(self, release_id: str) -> Release:
        return wire.read(self.url, wire.release, self._get(f"releases/{quote(release_id, safe='')}"))

    def upload(self, layers: Iterable[Layer], archives: Mapping[str, Path], progress: Progress) -> tuple[Layer, ...]:
        by_digest = {layer.digest: layer for layer in layers}
        answer = self._ask("POST", "layers/missing", body={"digests": list(by_digest)}, tries=TRIES_PAUSES_S)
        missing = tuple(by_digest[digest] for digest in wire.read(self.url, _missing, answer) if digest in by_digest)
        with ThreadPoolExecutor(UPLOADS_AT_ONCE, thread_name_prefix="upload") as pool:
            stop = threading.Event()
            sent = [pool.submit(self._put, layer, archives[layer.digest], progress, stop) for layer in missing]
            try:
                for one in sent:
                    one.result()
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return missing

    def apply(self, release: Release, *, expected: str | None, removes: Collection[str], by: str) -> int:
        record = json.loads(releases.dumps(release))
        body = {"release": record, "expected": expected, "removes": sorted(removes), "by": by}
        return self._begun("releases", body)

    def wait(self, number: int, *, after: int = 0, wait_s: float = 20.0) -> Rollout:
        answer = self._get(f"rollouts/{number}", params={"after": after, "wait": wait_s}, read_s=wait_s + 30.0)
        return wire.read(self.url, wire.rollout, answer)

    def rollback(self, *, to: str | None, expected: str, by: str) -> int:
        return self._begun("rollback", {"to": to, "expected": expected, "by": by})

    def remove(self, confirm: str, *, by: str) -> None:
        self._ask("POST", "remove", body={"confirm": confirm, "by": by}, read_s=120.0)

    def status(self) -> dict[str, Json]:
        found: dict[str, Json] = self._get("status")
        return found

    def logs(
        self, endpoint: str | None = None, *, lines: int = 100, follow: bool = False, job: str | None = None
    ) -> Iterator[dict[str, Json]]:
        asked: dict[str, Any] = {"endpoint": endpoint, "lines": lines, "follow": int(follow), "job": job}
        params = {name: value for name, value in asked.items() if value is not None}
        timeout = httpx.Timeout(30.0, connect=5.0, read=None if follow else 30.0)
        try:
            with self._http.stream("GET", "/_flashfw/logs", params=params, timeout=timeout) as response:
                if response.status_code != 200:
                    response.read()
                    raise refused(self.url, response, environment=self.name)
                for line in response.iter_lines():
                    if line.strip():
                        yield wire.read(self.url, json.loads, line)
        except httpx.TransportError as error:
            raise unreachable(self.url, error, environment=self.name) from error

    def _begun(self, page: str, body: Json) -> int:
        return wire.read(self.url, _number, self._ask("POST", page, body=body))

    def _current(self, index: Json) -> Shipped | None:
        found = {release.id: release for release in wire.read(self.url, _shipped, index)}
        current = index.get("current")
        return found.get(current, Shipped(id=current, created=0.0, by="")) if current else None

    def _put(self, layer: Layer, archive: Path, progress: Progress, stop: threading.Event) -> None:
        path = f"layers/{layer.digest}"
        total = archive.stat().st_size

        def pieces() -> Iterator[bytes]:
            sent = 0
            with archive.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    if stop.is_set():  # half a layer is nothing to the server
                        raise UnansweredError("the upload was given up")
                    yield piece
                    sent += len(piece)
                    if sent < total:  # it is there once the server says so
                        progress(layer.digest, sent, total)

        for pause_s in (*TRIES_PAUSES_S, None):
            try:
                self._send("PUT", path, {"size": layer.size_bytes}, 300.0, {"content-length": str(total)}, pieces())
                progress(layer.digest, total, total)
                return
            except UnansweredError:
                if pause_s is None or stop.wait(pause_s):
                    raise

    def _get(self, page: str, *, params: Mapping[str, Any] | None = None, read_s: float = 30.0) -> Json:
        return self._ask("GET", page, params=params, read_s=read_s, tries=TRIES_PAUSES_S[:1])

    def _ask(
        self,
        method: str,
        page: str,
        *,
        body: Json = None,
        params: Mapping[str, Any] | None = None,
        read_s: float = 30.0,
        tries: tuple[float, ...] = (),
    ) -> Json:
        headers = {} if body is None else {"content-type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        for pause_s in (*tries, None):
            try:
                response = self._send(method, page, params, read_s, headers, content)
                break
            except UnansweredError:
                if pause_s is None:
                    raise
                time.sleep(pause_s)
        try:
            return response.json() if response.content else {}
        except ValueError:
            raise stranger(self.url, response) from None

    def _send(
        self,
        method: str,
        page: str,
        params: Mapping[str, Any] | None,
        read_s: float,
        headers: Mapping[str, str],
        content: bytes | Iterator[bytes] | None,
    ) -> httpx.Response:
        timeout = httpx.Timeout(30.0, connect=5.0, read=read_s, write=60.0)
        try:
            response = self._http.request(
                method, f"/_flashfw/{page}", params=params, headers=headers, content=content, timeout=timeout
            )
        except httpx.TransportError as error:
            raise unreachable(self.url, error, environment=self.name) from error
        if not response.is_success:
            raise refused(self.url, response, environment=self.name)
        return response


def _shipped(index: Json) -> tuple[Shipped, ...]:
    return tuple(wire.shipped(found) for found in index["releases"])


def _secrets(answer: Json) -> frozenset[str]:
    return frozenset(str(found["name"]) for found in answer["secrets"])


def _missing(answer: Json) -> list[str]:
    return [str(digest) for digest in answer["missing"]]


def _number(answer: Json) -> int:
    return int(answer["rollout"])
