"""A server's administration under real HTTP, in a thread of the tests: keys, secrets, logs, and no worker."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flashfw.cluster.auth.pages import KeyPages
from flashfw.cluster.auth.store import Keys
from flashfw.cluster.clock import SystemClock
from flashfw.cluster.gateway.answers import Refused, ResponseCut, send_json
from flashfw.cluster.gateway.guard import PRINCIPAL, KeysGuard, admit
from flashfw.cluster.logs.logs import Logs
from flashfw.cluster.logs.pages import LogPages
from flashfw.cluster.secrets.pages import SecretPages
from flashfw.cluster.secrets.store import Secrets
from flashfw.cluster.state import FILE, State
from flashfw.manifest import Manifest, Variable
from tests.cluster.bench import an_endpoint


class Administered:
    """What is administered; `url` is where. `rolled` are the names of secrets that were told to have changed."""

    def __init__(self, folder: Path) -> None:
        clock = SystemClock()
        self.data = folder
        self.url = ""
        self.state = State(folder / FILE)
        self.keys = Keys(self.state, clock)
        self.secrets = Secrets(self.state, folder / "secret.key", clock)
        self.logs = Logs(folder / "logs", clock)
        self.rolled: list[str] = []
        secrets = (Variable(name="HF_TOKEN", value="TOKEN"),)
        self.manifest = Manifest(project="shop", environment="prod", endpoints=(an_endpoint("gpu", secrets=secrets),))

    def app(self) -> ASGIApp:
        def rolls(names: Collection[str]) -> None:
            self.rolled += names

        def manifest() -> Manifest:
            return self.manifest

        pages: list[BaseRoute] = [
            *KeyPages(self.keys).routes(),
            *SecretPages(self.secrets, self.state, manifest=manifest, on_changed=rolls).routes(),
            *LogPages(self.logs, manifest=manifest).routes(),
            Route("/openapi.json", lambda request: JSONResponse({"openapi": "3.1.0", "paths": {}})),
        ]
        return _Guarded(Starlette(routes=pages, lifespan=self._lifespan), KeysGuard(self.keys))

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.logs.run)
            yield
            tasks.cancel_scope.cancel()


class _Guarded:
    """What the gateway does around the administration."""

    def __init__(self, app: Starlette, guard: KeysGuard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def checked(message: Message) -> None:
            if message.get("more_body") and not self._guard.holds(scope[PRINCIPAL]):
                raise ResponseCut("revoked")
            await send(message)

        try:
            admit(self._guard, scope, public=False, needs="call" if scope["path"] == "/openapi.json" else "admin")
            await self._app.router(scope, receive, checked)
        except Refused as error:
            await send_json(send, error.status, error.body, error.headers)
        except ResponseCut:  # the server closes the connection
            return


@contextmanager
def administered(folder: Path, *, port: int = 0) -> Iterator[Administered]:
    """A server for as long as the block runs."""
    server = Administered(folder)
    config = uvicorn.Config(server.app(), port=port, log_level="critical", timeout_graceful_shutdown=1, lifespan="on")
    running = uvicorn.Server(config)
    sock = config.bind_socket()
    sock.listen()  # whoever connects before the thread has begun waits, and is not refused
    thread = threading.Thread(target=running.run, args=([sock],), daemon=True)
    server.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    with server.state:
        thread.start()
        try:
            yield server
        finally:
            running.should_exit = True
            thread.join(30)
            sock.close()
