"""Loads models before they are asked for, while a box is idle.

Which model is likely says whoever is given (server/usage/history.py); what may be loaded, and what may go for it, says
provident.py. Here is decided when: on a box where nobody has run or waited for IDLE_MS, on any replica, and nothing is
being calibrated. One load at a time in the whole house: the lock in Postgres is that of calibrating.py, so that neither
spoils the other. A load that was broken off makes its box rest, twice as long each time; a model that could not be
loaded is not tried for FAILED_REST_MS. Something goes for a preloaded model at most once in EVICT_EVERY_MS in each box,
so that forecasts that waver move nothing to and fro.

An engine that the server does not load models for may be in any box, and counts for all of them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from server.clock import Clock
from server.db.session import Database
from server.engines.boxes import Boxes
from server.engines.calibrating import ADVISORY_LOCK
from server.engines.fleet import Fleet
from server.engines.metrics import read_running
from server.engines.places import IN_MEMORY, Load, Loader, Placed
from server.engines.pool import Pool
from server.engines.provident import CHANCE_MIN, Foresight, Outcome, Preload, ProvidentResidency
from server.errors import Unavailable
from server.telemetry import MODEL_PRELOADS

LOOK_EVERY_MS = 2_000
IDLE_MS = 10_000
REST_MS_MIN, REST_MS_MAX = 30_000, 1_800_000
FAILED_REST_MS = 3_600_000
EVICT_EVERY_MS = 600_000
USED = "used"

log = structlog.get_logger(__name__)

Turn = Callable[[], AbstractAsyncContextManager[bool]]


class Expects(Protocol):
    """Who knows what people will ask."""

    def models(self) -> Mapping[str, float]:
        """How likely each model is asked for in the next minutes, 0 to 1."""
        ...


class Observed:
    """All boxes, as requests see them, and when somebody last wanted something of them."""

    def __init__(self, boxes: Loader, clock: Clock) -> None:
        self._boxes = boxes
        self._clock = clock
        # By engine: when somebody last came or went.
        self._stirred_ms: dict[str, int] = {}
        self._unused: set[tuple[str, str]] = set()

    @asynccontextmanager
    async def use(self, engine: str, model: str, *, caused_by: str) -> AsyncIterator[Load | None]:
        """Have the model in memory while the block runs; see `Residency.use`."""
        self._stirred_ms[engine] = self._clock.monotonic_ms()
        if (engine, model) in self._unused:
            self._unused.discard((engine, model))
            MODEL_PRELOADS.labels(engine, USED).inc()
        try:
            async with self._boxes.use(engine, model, caused_by=caused_by) as load:
                yield load
        finally:
            self._stirred_ms[engine] = self._clock.monotonic_ms()

    def view(self) -> list[Placed]:
        """Every model that is known."""
        return self._boxes.view()

    def stirred_ms(self, engines: Collection[str]) -> int:
        """When somebody last came to one of these engines, or went; 0 for never."""
        return max((self._stirred_ms.get(engine, 0) for engine in engines), default=0)

    def came_unasked(self, preload: Preload) -> None:
        """A model was loaded for which nobody asked."""
        self._unused -= set(preload.evicted)
        if preload.is_used:
            MODEL_PRELOADS.labels(preload.engine, USED).inc()
        else:
            self._unused.add((preload.engine, preload.model))


@dataclass(slots=True)
class _Mood:
    """How a box is, as far as preloading goes.

    Attributes:
        idle_since_ms: None while it is used.
        rests_until_ms, rest_ms: after a load that was broken off.
        evicts_from_ms: nothing goes for a preloaded model before.
    """

    idle_since_ms: int | None = None
    rests_until_ms: int = 0
    rest_ms: int = 0
    evicts_from_ms: int = 0


class Preloading:
    """One per replica.

    Args:
        observed: what requests go through, so that it is known when the last came or went.
        load: how many requests of an engine run and wait, on all replicas. Raises redis.RedisError.
        turn: tells whether nobody else of the house measures or preloads, until the end of its block. Raises
            Unavailable.
    """

    def __init__(
        self,
        *,
        boxes: Boxes,
        pool: Pool,
        observed: Observed,
        expects: Expects,
        clock: Clock,
        load: Callable[[str], Awaitable[tuple[int, int]]],
        turn: Turn,
    ) -> None:
        self._boxes = boxes
        self._pool = pool
        self._observed = observed
        self._expects = expects
        self._clock = clock
        self._load = load
        self._turn = turn
        self._moods: dict[ProvidentResidency, _Mood] = {}
        # By engine and model: when it may be tried again.
        self._failed: dict[tuple[str, str], int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.step()
            except (Unavailable, SQLAlchemyError) as error:
                log.debug("nothing is preloaded now", error=type(error).__name__)
            except Exception:  # a plugin may do anything
                log.exception("models cannot be preloaded")
            await self._clock.sleep_ms(LOOK_EVERY_MS)

    async def step(self) -> None:
        """Load a model into each box that is idle, if there is one worth it.

        Raises:
            Unavailable: Postgres is away.
        """
        chances = self._expects.models()
        groups = self._boxes.groups()
        self._moods = {residency: self._moods.get(residency, _Mood()) for residency in groups}
        self._failed = {place: until for place, until in self._failed.items() if until > self._clock.monotonic_ms()}
        if max(chances.values(), default=0.0) < CHANCE_MIN:
            return
        boxed = {engine for engines in groups.values() for engine in engines}
        anywhere = [name for name in self._pool.names if name not in boxed]
        for residency, engines in groups.items():
            await self._consider(residency, [*engines, *anywhere], self._foresight(chances, residency, anywhere))

    def _foresight(
        self, chances: Mapping[str, float], residency: ProvidentResidency, anywhere: Collection[str]
    ) -> Foresight:
        there = {placed.model for placed in self._boxes.view() if placed.state in IN_MEMORY or placed.is_moving}
        for name in anywhere:
            health = self._pool.health(name)
            if health is not None and health.is_up:
                there |= {model.id for model in health.models}

        def may_come(engine: str, model: str) -> bool:
            health = self._pool.health(engine)
            return (
                model not in there
                and (engine, model) not in self._failed
                and health is not None
                and health.is_up
                and not health.is_draining
                and health.breaker == "closed"
            )

        return Foresight(chances, may_come, self._clock.monotonic_ms() >= self._moods[residency].evicts_from_ms)

    async def _consider(self, residency: ProvidentResidency, engines: Collection[str], foresight: Foresight) -> None:
        mood, now_ms = self._moods[residency], self._clock.monotonic_ms()
        is_used = partial(self._is_used, engines)
        if not residency.is_quiet or now_ms < mood.rests_until_ms or not residency.foresees(foresight):
            mood.idle_since_ms = None
            return
        if await is_used():
            mood.idle_since_ms = None
            return
        if mood.idle_since_ms is None:
            mood.idle_since_ms = now_ms
        if now_ms - max(mood.idle_since_ms, self._observed.stirred_ms(engines)) < IDLE_MS:
            return
        mood.idle_since_ms = None
        async with self._turn() as is_ours:
            if is_ours and not await self._strangers_run(engines):
                preload = await residency.preload(foresight, is_used)
                if preload is not None:
                    self._learn(mood, preload, foresight)

    def _learn(self, mood: _Mood, preload: Preload, foresight: Foresight) -> None:
        now_ms = self._clock.monotonic_ms()
        MODEL_PRELOADS.labels(preload.engine, preload.outcome).inc()
        if preload.evicted:
            mood.evicts_from_ms = now_ms + EVICT_EVERY_MS
        match preload.outcome:
            case Outcome.LOADED:
                mood.rest_ms = 0
                self._observed.came_unasked(preload)
            case Outcome.BROKEN_OFF:
                mood.rest_ms = min(max(2 * mood.rest_ms, REST_MS_MIN), REST_MS_MAX)
                mood.rests_until_ms = now_ms + mood.rest_ms
            case Outcome.FAILED:
                self._failed[preload.engine, preload.model] = now_ms + FAILED_REST_MS
        log.info(
            "model preloaded" if preload.outcome is Outcome.LOADED else "model not preloaded",
            engine=preload.engine,
            model=preload.model,
            outcome=preload.outcome,
            chance=round(foresight.chances.get(preload.model, 0.0), 3),
            took_ms=preload.took_ms,
            evicted=len(preload.evicted),
        )

    async def _is_used(self, engines: Collection[str]) -> bool:
        """Whether anybody runs or waits on these engines, on any replica; yes where nobody can tell."""
        for name in engines:
            health = self._pool.health(name)
            if health is not None and health.in_use:
                return True
        try:
            for name in engines:
                if any(await self._load(name)):
                    return True
        except (RedisError, OSError):
            return True
        return False

    async def _strangers_run(self, engines: Collection[str]) -> bool:
        """Whether an engine tells of requests, which nobody here has sent."""
        for name in engines:
            engine, health = self._pool.engine(name), self._pool.health(name)
            if engine is None or health is None or not health.is_up:
                continue
            page = await engine.metrics()
            if page is not None and read_running(page):
                return True
        return False


@asynccontextmanager
async def only_one(database: Database) -> AsyncIterator[bool]:
    """Whether nobody else of the house measures or preloads, until the end of the block."""
    # The transaction holds nothing but the lock, and reads nothing, so that it keeps no row alive.
    async with database.transaction() as session:
        query = text("SELECT pg_try_advisory_xact_lock(:lock)")
        yield bool(await session.scalar(query, {"lock": ADVISORY_LOCK}))


def preloads_of(
    fleet: Fleet,
    expects: Expects,
    *,
    database: Database,
    clock: Clock,
    load: Callable[[str], Awaitable[tuple[int, int]]],
) -> tuple[Observed, Preloading]:
    """What requests go through to have their model in memory, and what loads models before they come."""
    observed = Observed(fleet.residency, clock)
    return observed, Preloading(
        boxes=fleet.residency,
        pool=fleet.pool,
        observed=observed,
        expects=expects,
        clock=clock,
        load=load,
        turn=partial(only_one, database),
    )
