"""Starlette responses whose synchronous parts run in the worker's user threads, not in threads of Starlette's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any

from starlette.background import BackgroundTask, BackgroundTasks
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response, StreamingResponse

from flashfw.worker.http_stream import END, RunSync


def in_user_threads(response: Response, run_sync: RunSync) -> Response:
    """The same response; its synchronous body iterator and background tasks now run where `run_sync` runs them.

    Values that a handler made in its thread (a CUDA context, an SQLite connection) stay usable there. A response
    that is used for several calls may come more than once.
    """
    if isinstance(response, StreamingResponse) and (items := _sync_items(response.body_iterator)) is not None:
        response.body_iterator = _iterated(items, run_sync)
    if response.background is not None and not isinstance(response.background, _Background):
        response.background = _Background(response.background, run_sync)
    return response


def _sync_items(body: Any) -> Any:
    """What Starlette is to iterate in its own threads; it keeps this nowhere but in its generator's frame."""
    if getattr(body, "ag_code", None) is not iterate_in_threadpool.__code__ or body.ag_frame is None:
        return None
    return body.ag_frame.f_locals.get("iterator")


async def _iterated(items: Any, run_sync: RunSync) -> AsyncGenerator[Any, None]:
    iterator: Iterator[Any] = await run_sync(iter, items)
    try:
        while (item := await run_sync(next, iterator, END)) is not END:
            yield item
    finally:
        if close := getattr(iterator, "close", None):  # a generator: its `finally` belongs to the same thread
            await run_sync(close)


class _Background(BackgroundTask):
    """Runs one task, or several in order, after the response is sent."""

    def __init__(self, task: BackgroundTask, run_sync: RunSync) -> None:
        self._task = task
        self._run_sync = run_sync

    async def __call__(self) -> None:
        if isinstance(self._task, BackgroundTasks):
            for task in self._task.tasks:
                await _Background(task, self._run_sync)()
        elif type(self._task) is BackgroundTask and not self._task.is_async:
            await self._run_sync(lambda: self._task.func(*self._task.args, **self._task.kwargs))
        else:  # a class of the user's decides by itself
            await self._task()
