from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.worker.flow import Window, WindowClosed

WAIT_S = 10.0


@given(st.lists(st.integers(1, 300), max_size=60))
def test_never_more_than_the_window_is_under_way(sizes: list[int]) -> None:
    window, under_way = Window(200), []
    for size in sizes:
        while under_way and sum(under_way) + size > 200:
            window.credit(under_way.pop(0))
        window.take(size)  # would wait for ever if it counted otherwise
        under_way.append(size)


def test_a_thread_waits_for_credit() -> None:
    window, through = Window(100), threading.Event()
    window.take(100)
    thread = threading.Thread(target=lambda: (window.take(60), through.set()))
    thread.start()
    assert not through.is_set()
    window.credit(50)
    assert not through.is_set()
    window.credit(50)
    assert through.wait(WAIT_S)
    thread.join()


def test_the_loop_waits_for_credit() -> None:
    async def run() -> None:
        window = Window(100)
        await window.take_async(100)
        waiting = [asyncio.ensure_future(window.take_async(60)) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        await asyncio.to_thread(window.credit, 100)
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [task.done() for task in waiting].count(True) == 1
        window.credit(60)
        await asyncio.gather(*waiting)

    asyncio.run(asyncio.wait_for(run(), WAIT_S))


def test_closing_ends_all_waiting() -> None:
    async def run() -> None:
        window = Window(100)
        window.take(100)
        on_loop = asyncio.ensure_future(window.take_async(1))
        in_thread = asyncio.ensure_future(asyncio.to_thread(window.take, 1))
        await asyncio.sleep(0)
        window.close()
        for task in (on_loop, in_thread):
            with pytest.raises(WindowClosed):
                await task
        with pytest.raises(WindowClosed):
            window.take(1)

    asyncio.run(asyncio.wait_for(run(), WAIT_S))
