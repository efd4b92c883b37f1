"""The outlook: who runs, who waits and for how long, read from the ledger at most once a second for everybody."""

import asyncio

from redis.exceptions import RedisError

from quotas.forecast import Experience, Standing, forecast
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
        self._failure: RedisError | OSError | None = None
        self._reading = asyncio.Lock()
        self._experience = Experience()

    async def view(self) -> View:
        """The box as it was within the last second."""
        async with self._reading:
            now_ms = self._clock.monotonic_ms()
            if self._read_ms is None or now_ms - self._read_ms >= FRESH_MS:
                await self._read()
                self._read_ms = self._clock.monotonic_ms()
        # A failure too holds for a second: each may have taken seconds, and many wait for the answer.
        if self._failure is not None:
            raise self._failure
        return self._view

    async def expected_wait_ms(self, engine: str, slots: int) -> float:
        """About how long a request that came now would wait for an engine."""
        running, waiting = await self._ledger.load(engine)
        lately = next((each for each in (await self.view()).engines if each.name == engine), None)
        answer_ms = lately.first_ms + lately.answer_tokens * lately.token_us / 1000 if lately is not None else 0
        # Among those with room the emptier one, which is the faster one too.
        ahead = max(running + waiting + 1 - slots, 0) + running / slots / 1000
        return max(answer_ms, 1) * ahead / slots

    async def _read(self) -> None:
        try:
            self._view = await self._ledger.view()
        except (RedisError, OSError) as error:
            self._failure = error
            return
        self._failure = None
        self._standings = {
            request: standing for engine in self._view.engines for request, standing in forecast(engine).items()
        }

    async def standing(self, request: str, flow: str) -> Standing | None:
        """Where a queued request of this flow stands; None if it was not queued a moment ago."""
        await self.view()
        standing = self._standings.get(request)
        return None if standing is None else self._experience.corrected(flow, standing)

    def estimate_ms(self, request: str) -> int | None:
        """The wait that was last forecast, as it is, to be learned from when it is over."""
        standing = self._standings.get(request)
        return None if standing is None else standing.wait_ms

    def learn(self, flow: str, estimated_ms: int, waited_ms: int) -> None:
        """What became of an estimate."""
        self._experience.learn(flow, estimated_ms, waited_ms)

    async def room_in_ms(self, flow: str) -> int | None:
        """When the queue of this flow will have a place again: with the turn of the first that waits."""
        view = await self.view()
        waits = [
            standing.wait_ms
            for engine in view.engines
            for queued in engine.queued
            if queued.flow == flow
            and (standing := await self.standing(queued.id, flow)) is not None
            and standing.wait_ms is not None
        ]
        return min(waits, default=None)
