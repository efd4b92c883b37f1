"""Ends on their way to Redis: ending a request never waits and never fails.

It happens in the middle of cancellations, where an `await` might not be reached. So ends lie in a queue in memory, and
one loop carries them, in order, and again after Redis was away.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from redis.exceptions import DataError, RedisError

# While Redis is away everybody who gives up adds one. What is not carried is harmless: the reaper finds it.
LEAVES_MAX = 10_000

log = structlog.get_logger(__name__)

# Tells Redis, and may be called twice. Raises redis.RedisError.
End = Callable[[], Awaitable[None]]


class Ends:
    """The ends of one replica."""

    def __init__(self) -> None:
        # Bounded: by the leases of this replica, since nobody is admitted while Redis is away, and by LEAVES_MAX.
        self._ends: asyncio.Queue[End] = asyncio.Queue()

    def add(self, end: End) -> None:
        """One that has to arrive: it settles a lease."""
        self._ends.put_nowait(end)

    def add_leave(self, end: End) -> None:
        """One that the reaper would make good."""
        if self._ends.qsize() < LEAVES_MAX:
            self._ends.put_nowait(end)

    async def carry(self) -> None:
        """Wait for the next end, and tell Redis. Raises redis.RedisError; then it is still there."""
        end = await self._ends.get()
        try:
            await end()
        except DataError:
            # It can never be written; the lease runs out by itself.
            log.exception("an end was lost")
        except BaseException:
            # Back in the queue, also when cancelled: the order of ends means nothing, since each names its request.
            self._ends.put_nowait(end)
            raise

    async def carry_rest(self, ms_max: int) -> None:
        """Tell Redis what is left, as far as it comes in that time."""
        try:
            async with asyncio.timeout(ms_max / 1000):
                while not self._ends.empty():
                    await self.carry()
        except (RedisError, OSError, TimeoutError) as error:
            # The leases run out by themselves; the reaper of another replica, or of the next start, settles them.
            log.error("ends not carried to redis", count=self._ends.qsize(), error=type(error).__name__)
