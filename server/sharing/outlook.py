"""The outlook: who runs, who waits and for how long, read from the ledger at most once a second for everybody."""

import asyncio

from quotas.forecast import Standing, forecast
from quotas.ledger import Ledger
from quotas.view import View
from server.clock import Clock

FRESH_MS = 1_000


class Outlook:
    """A look at the box that all who ask share.

    Methods raise redis.RedisError when Redis is away.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._view = View(())
        self._standings: dict[str, Standing] = {}
        self._read_ms: int | None = None
        self._reading = asyncio.Lock()

    async def view(self) -> View:
        """The box as it was within the last second."""
        async with self._reading:
            now_ms = self._clock.monotonic_ms()
            if self._read_ms is None or now_ms - self._read_ms >= FRESH_MS:
                self._view = await self._ledger.view()
                self._standings = {
                    request: standing for engine in self._view.engines for request, standing in forecast(engine).items()
                }
                self._read_ms = now_ms
        return self._view

    async def standing(self, request: str) -> Standing | None:
        """Where a queued request stands; None if it was not queued a moment ago."""
        await self.view()
        return self._standings.get(request)

    async def room_in_ms(self, flow: str) -> int | None:
        """When the queue of this flow will have a place again: with the turn of the first that waits."""
        view = await self.view()
        waits = [
            standing.wait_ms
            for engine in view.engines
            for queued in engine.queued
            if queued.flow == flow
            and (standing := self._standings.get(queued.id)) is not None
            and standing.wait_ms is not None
        ]
        return min(waits, default=None)
