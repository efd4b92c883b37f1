"""Waiting that ends, by the clock that is given, so that tests need not wait."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from server.clock import Clock
from server.errors import EngineTimeout

T = TypeVar("T")


async def first_of(event: asyncio.Future[Any], clock: Clock, duration_ms: int) -> bool:
    """Wait for `event`, at most so long; tells whether it came. Leaves it as it is."""
    timer: asyncio.Future[Any] = asyncio.ensure_future(clock.sleep_ms(duration_ms))
    try:
        await asyncio.wait({event, timer}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
    return event.done()


async def within(clock: Clock, work: Awaitable[T], duration_ms: int) -> T:
    """The result of `work`, which is cancelled if it takes longer.

    Raises:
        EngineTimeout: it took longer.
    """
    task = asyncio.ensure_future(work)
    try:
        if not await first_of(task, clock, duration_ms):
            raise EngineTimeout(f"It took longer than {duration_ms // 1000} s.")
        return task.result()
    finally:
        task.cancel()
