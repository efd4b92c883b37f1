"""Measures each model once, when nobody is in the way.

A loop looks every few seconds for a model that is in memory (residents.py) and has no result (calibrations.py), on an
engine on which nothing runs or waits, here or on another replica. One is measured at a time on the whole box: an
advisory lock in Postgres says whose turn it is, and is given back by itself where a replica dies. As soon as somebody
wants the engine, or a model is moved, the measuring ends: its streams are closed, nothing is kept, and it is tried
again after a pause that doubles. What cannot be measured is kept with its reason. When all that is in memory was
measured, and all engines are idle, it is measured what they leave each other (contention.py).

People who use the engine past this server are seen where it tells how many run on it; others on the same machine are
not seen, and spoil figures.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog
from msgspec.structs import replace
from redis.exceptions import RedisError
from sqlalchemy import text

from server.clock import Clock
from server.db.session import Database
from server.engines.calibration import TOGETHER_MAX, Beside, calibrate
from server.engines.calibrations import Calibrations, Record
from server.engines.contention import contention, missing_sets
from server.engines.metrics import read_running
from server.engines.openai_compatible import UNREACHABLE
from server.engines.places import Loader
from server.engines.pool import Pool
from server.engines.protocol import Engine
from server.engines.residents import Residents
from server.errors import Conflict, NotFound, Unavailable, WirthforgeError

LOOK_EVERY_MS = 5_000
# How soon it is noticed that somebody wants the engine.
WATCH_EVERY_MS = 25
REST_MS_MIN, REST_MS_MAX = 10_000, 3_600_000
MEASURE_MS_MAX = 1_800_000
# Any number; all replicas agree on it. Migrators have another (migrations/env.py).
ADVISORY_LOCK = 7_010_011

# Where all engines rest together, which have no name.
ALL = ("", "")

T = TypeVar("T")

log = structlog.get_logger(__name__)


class InUse(Conflict):
    """Somebody uses the engine."""

    code = "engine_in_use"


class Interrupted(Conflict):
    """Somebody wanted the engine while it was measured."""

    code = "calibration_interrupted"


class Calibrating:
    """One per replica.

    Args:
        load: how many requests of an engine run and wait, on all replicas. Raises redis.RedisError.
        slots: of an engine, as its admin or it itself says; None where nobody does.
        nonce: gives a text that was never sent before.
    """

    def __init__(  # noqa: PLR0913 (the parts that it joins)
        self,
        *,
        pool: Pool,
        residency: Loader,
        residents: Residents,
        store: Calibrations,
        database: Database,
        clock: Clock,
        load: Callable[[str], Awaitable[tuple[int, int]]],
        slots: Callable[[str], int | None],
        nonce: Callable[[], str],
    ) -> None:
        self._pool = pool
        self._residency = residency
        self._residents = residents
        self._store = store
        self._database = database
        self._clock = clock
        self._load = load
        self._slots = slots
        self._nonce = nonce
        # By engine and model: until when it is left alone, and how long the pause was.
        self._rests: dict[tuple[str, str], tuple[int, int]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.step()
            await self._clock.sleep_ms(LOOK_EVERY_MS)

    async def step(self) -> None:
        """Measure what is due and can be measured now."""
        for engine in self._pool.names:
            health = self._pool.health(engine)
            if not any(self._is_due(engine, model.id) for model in (health.models if health is not None else ())):
                continue
            try:
                for model in await self._residents.of(engine):
                    if self._is_due(engine, model):
                        await self._try(engine, model)
            except WirthforgeError as error:
                log.warning("engine is not calibrated now", engine=engine, reason=error.message)
            except Exception:  # a plugin may do anything
                log.exception("engine cannot be calibrated", engine=engine)
        try:
            await self._contend()
        except WirthforgeError as error:
            self._rest(ALL, error.message)

    async def _contend(self) -> None:
        """Measure what models in memory leave each other, where that is not known yet. Raises WirthforgeError."""
        if self._clock.monotonic_ms() < self._rests.get(ALL, (0, 0))[0]:
            return
        known = {
            (name, model.id): found
            for name in self._pool.names
            if (health := self._pool.health(name)) is not None
            for model in health.models
            if (found := self._store.measured(name, model.id)) is not None
        }
        if not missing_sets(known):
            return  # and nobody is asked what is in memory
        resident = {(name, model) for name in {name for name, _ in known} for model in await self._residents.of(name)}
        known = {place: found for place, found in known.items() if place in resident}
        sets = missing_sets(known)
        engines = {name: engine for name, _ in known if (engine := self._pool.engine(name)) is not None}
        if not sets or [name for name, engine in engines.items() if await self._is_used(name, engine)]:
            return
        async with self._turn():
            residents = {place: (engines[place[0]], place[1]) for place in known}
            contended = await self._unless_used(
                contention(residents, clock=self._clock, nonce=self._nonce, sets=sets), engines
            )
            for place, figures in known.items():
                beside = [
                    Beside(tuple(other for other in each.left if other != place), each.left[place])
                    for each in contended
                    if place in each.left
                ]
                await self._store.keep(*place, replace(figures, beside=(*figures.beside, *beside)))
            log.info("contention measured", sets=len(contended))
            self._rests.pop(ALL, None)

    def _is_due(self, engine: str, model: str) -> bool:
        until_ms, _ = self._rests.get((engine, model), (0, 0))
        return self._clock.monotonic_ms() >= until_ms and self._store.is_due(engine, model)

    async def _try(self, engine: str, model: str) -> None:
        try:
            await self.measure(engine, model, only_if_due=True)
        except InUse:
            return  # nothing was begun
        except (Interrupted, Unavailable) as error:
            self._rest((engine, model), error.message)
        else:
            self._rests.pop((engine, model), None)

    def _rest(self, place: tuple[str, str], why: str) -> None:
        """For twice as long as last time."""
        _, last_ms = self._rests.get(place, (0, 0))
        rest_ms = min(max(2 * last_ms, REST_MS_MIN), REST_MS_MAX)
        self._rests[place] = self._clock.monotonic_ms() + rest_ms, rest_ms
        log.info("calibration stepped aside", engine=place[0], model=place[1], again_in_ms=rest_ms, why=why)

    async def measure_now(self, name: str, model: str | None) -> Record:
        """For an admin.

        Args:
            model: None is the first that is in memory.

        Raises:
            NotFound: there is no such engine or model.
            Conflict: it is in use, or no model is in memory, or another calibration runs, or somebody came.
            Unavailable: the engine does not answer, or Postgres.
        """
        health = self._pool.health(name)
        if health is None:
            raise NotFound(f"There is no engine that is called {name[:100]!r}.", code="engine_not_found")
        if not health.is_up:
            raise Unavailable(f"Engine {name} does not answer: {health.reason}", code="engine_away", retry_after_s=5)
        if model is not None and model not in {each.id for each in health.models}:
            raise NotFound(f"Engine {name} has no model {model[:100]!r}.", code="model_not_found")
        resident = await self._residents.of(name)
        if not resident or (model is not None and model not in resident):
            raise Conflict(
                "The model is not in memory, or nobody knows whether it is. Ask it something first.", code="model_cold"
            )
        return await self.measure(name, model or resident[0])

    async def measure(self, name: str, model: str, *, only_if_due: bool = False) -> Record:
        """Measure and keep the result, which may be a failure.

        Raises:
            InUse, Interrupted: see there.
            Unavailable: the engine is away or full, or Postgres.
        """
        async with self._turn():
            engine = self._pool.engine(name)
            if engine is None or await self._is_used(name, engine) or await self._others_run(engine):
                raise InUse(f"Engine {name} is in use.")
            if only_if_due:
                await self._store.read()  # another replica may have measured it
                if not self._store.is_due(name, model):
                    raise InUse(f"{model} was measured elsewhere.")
            answers_max = self._slots(name) or TOGETHER_MAX
            measuring = calibrate(engine, model, clock=self._clock, nonce=self._nonce, answers_max=answers_max)
            try:
                figures = await self._unless_used(measuring, {name: engine})
            except (Conflict, Unavailable):
                raise
            except WirthforgeError as error:
                if error.code == UNREACHABLE or self._pool.engine(name) is not engine:
                    raise Interrupted(f"Engine {name} went away.") from error
                log.warning("engine cannot be calibrated", engine=name, model=model, reason=error.message)
                return await self._store.keep(name, model, None, error.message)
            except Exception as error:  # a plugin may do anything
                log.exception("engine cannot be calibrated", engine=name, model=model)
                return await self._store.keep(name, model, None, f"{type(error).__name__}: {error}")
            record = await self._store.keep(name, model, figures)
            log.info("engine calibrated", engine=name, model=model, knee=figures.knee, output_cost=figures.output_cost)
            return record

    async def _unless_used(self, work: Coroutine[Any, Any, T], engines: Mapping[str, Engine]) -> T:
        """What comes of `work`, unless somebody wants one of the engines. Raises Interrupted, and what it raises."""
        measuring = asyncio.ensure_future(work)
        watching = asyncio.ensure_future(self._until_used(engines))
        try:
            await asyncio.wait({measuring, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not measuring.done():
                watching.result()
                raise Interrupted(f"Somebody wanted engine {', '.join(engines)}, or it took too long.")
            return measuring.result()
        finally:
            for task in (measuring, watching):
                task.cancel()
            await asyncio.wait({measuring, watching})

    async def _until_used(self, engines: Mapping[str, Engine]) -> None:
        until_ms = self._clock.monotonic_ms() + MEASURE_MS_MAX
        while self._clock.monotonic_ms() < until_ms:
            for name, engine in engines.items():
                if await self._is_used(name, engine):
                    return
            await self._clock.sleep_ms(WATCH_EVERY_MS)

    async def _is_used(self, name: str, engine: Engine) -> bool:
        """Whether anybody wants the engine, or something is done with it; yes where nobody can tell."""
        health = self._pool.health(name)
        if health is None or self._pool.engine(name) is not engine or health.is_draining or health.in_use:
            return True
        if any(placed.waiting or placed.is_moving for placed in self._residency.view()):
            return True
        try:
            return any(await self._load(name))
        except (RedisError, OSError):
            return True

    async def _others_run(self, engine: Engine) -> bool:
        """Whether the engine tells of requests, which nobody here has sent."""
        page = await engine.metrics()
        return bool(page is not None and read_running(page))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """The only one on the box. Raises InUse where another is at it.

        The transaction holds nothing but the lock, and reads nothing, so that it keeps no row alive.
        """
        async with self._database.transaction() as session:
            query = text("SELECT pg_try_advisory_xact_lock(:lock)")
            if not await session.scalar(query, {"lock": ADVISORY_LOCK}):
                raise InUse("Another engine of the box is being calibrated.")
            yield
