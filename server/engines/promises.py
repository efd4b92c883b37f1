"""What is known of engines' promises, in every replica, and how it is found out without anybody asking.

One rule for all engines, those of the settings and those that admins register: each is tested (conformance.py) when it
first answers, again when its kind, address or version is another, and whenever an admin asks. What was found is kept in
Postgres under the engine's name; each replica reads it every few seconds, so that `stops` costs a request nothing.

A test is real work on an engine that belongs to people, so without anybody asking it is done only

- when nothing has run on the engine for a while, as far as this replica and the engine's own metrics tell, and it ends
  at once when somebody comes: then it is tried again later;
- by one replica, which claims it in Postgres for as long as a test may take at most;
- once, whatever it found; one that failed again after an hour;
- with a model that is in memory (residents.py). Where nobody knows which are, that is the one that has answered
  somebody just before.

When an admin adds an engine it is tested at once, and where nobody knows what is in memory, with the only model it has.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy import or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from server.clock import Clock
from server.db.models import ConformanceRow
from server.db.session import Database
from server.deadline import first_of
from server.engines.conformance import TEST_MS_MAX, Conformance, Verdict, examine
from server.engines.kinds import EngineSpec
from server.engines.metrics import read_running
from server.engines.ollama import Ollama
from server.engines.places import Loader, State
from server.engines.pool import Health, Pool
from server.engines.protocol import Engine
from server.engines.residents import Residents
from server.engines.roster import Roster
from server.errors import Conflict, InvalidRequest, NotFound, Unavailable, WirthforgeError

LOOK_EVERY_MS = 5_000
IDLE_MS_MIN = 20_000
GIVE_WAY_EVERY_MS = 100
# Whoever holds it has ended or is dead by then.
CLAIM_MS = TEST_MS_MAX + 30_000
# One that could not be asked may only have been busy.
FAILED_AGAIN_MS = 3_600_000

log = structlog.get_logger(__name__)


class Identity(Struct, frozen=True):
    """Which engine it was that was tested. `version` is empty where it does not tell."""

    kind: str
    url: str
    version: str


class Promises:
    """What is known of all engines of the box, in one replica.

    Args:
        nonce: gives a text that no prompt ever held.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        pool: Pool,
        roster: Roster,
        residency: Loader,
        residents: Residents,
        nonce: Callable[[], str],
    ) -> None:
        self._database = database
        self._clock = clock
        self._nonce = nonce
        self._pool = pool
        self._roster = roster
        self._residency = residency
        self._residents = residents
        self._known: dict[str, tuple[Identity, Conformance]] = {}
        self._idle_since_ms: dict[str, int] = {}

    def found(self, name: str) -> Conformance | None:
        """What the last test of an engine found; None if it was not tested as it is now."""
        engine, known = self._pool.engine(name), self._known.get(name)
        if engine is None or known is None or not _is_same(known[0], self._identity(engine)):
            return None
        return known[1]

    def stops(self, name: str) -> Verdict:
        """Whether an engine stops when its client goes. Asks nobody, so it may be called for every request."""
        found = self.found(name)
        return "unknown" if found is None else found.stops

    def continues(self, name: str) -> bool:
        """Whether an engine is known to go on with an answer that was cut off; asks nobody."""
        found = self.found(name)
        return found is not None and found.continues == "yes"

    async def run(self) -> None:
        """Until cancelled: read what is known, and test what is not."""
        testing: asyncio.Task[None] | None = None
        try:
            while True:
                try:
                    await self.read()
                except WirthforgeError as error:
                    log.warning("promises not read", reason=error.message)
                else:
                    if testing is None or testing.done():
                        testing = asyncio.create_task(self._test_all(self._idle()))
                await self._clock.sleep_ms(LOOK_EVERY_MS)
        finally:
            if testing is not None:
                testing.cancel()
                await asyncio.wait([testing])

    async def read(self) -> None:
        """Learn what other replicas found. Raises Unavailable when Postgres is away."""
        async with self._database.transaction() as session:
            rows = (await session.scalars(select(ConformanceRow).where(ConformanceRow.found.is_not(None)))).all()
        known = {}
        for row in rows:
            with suppress(msgspec.ValidationError):  # of another version of this server
                found = msgspec.convert(row.found, Conformance)
                if not (found.error and row.tested_at and row.tested_at < self._failed_before()):
                    known[row.engine] = _identity(row), found
        self._known = known

    async def test(self, name: str, caused_by: str) -> Conformance:
        """Test an engine now, because an admin asks; it may make a model come.

        Args:
            caused_by: who is charged for that.

        Raises:
            NotFound: there is no such engine.
            Unavailable: it does not answer.
            InvalidRequest: it has no model.
            Conflict: it is being tested.
        """
        engine, health = self._member(name)
        model = next(iter(await self._residents.of(name)), health.models[0].id)
        found = await self._claimed(engine, lambda: self._examined(engine, model, caused_by), is_again=True)
        if found is None:
            raise Conflict(f"Engine {name} is being tested just now.", code="engine_being_tested")
        return found

    async def test_new(self, name: str) -> None:
        """Test an engine that was just added, if it can be tested without making a model come."""
        try:
            engine, health = self._member(name)
            models = await self._residents.of(name)
        except WirthforgeError:
            return
        await self._test_quietly(engine, next(iter(models), self._only_model(engine, health)))

    def _member(self, name: str) -> tuple[Engine, Health]:
        engine, health = self._pool.engine(name), self._pool.health(name)
        if engine is None or health is None:
            raise NotFound(f"There is no engine that is called {name[:100]!r}.", code="engine_not_found")
        if not health.is_up:
            raise Unavailable(f"Engine {name} does not answer: {health.reason}", code="engine_away", retry_after_s=5)
        if not health.models:
            raise InvalidRequest(f"Engine {name} has no model to test it with.")
        return engine, health

    def _idle(self) -> list[str]:
        """Engines that nobody has used for a while, and of which nothing is known."""
        now_ms, idle = self._clock.monotonic_ms(), []
        since_ms = self._idle_since_ms
        self._idle_since_ms = {}
        for name in self._pool.names:
            health = self._pool.health(name)
            if health is None or not _is_free(health):
                continue
            self._idle_since_ms[name] = since_ms.get(name, now_ms)
            if health.models and self.found(name) is None and now_ms - self._idle_since_ms[name] >= IDLE_MS_MIN:
                idle.append(name)
        return idle

    async def _test_all(self, names: list[str]) -> None:
        for name in names:
            engine, health = self._pool.engine(name), self._pool.health(name)
            if engine is None or health is None or not _is_free(health):
                continue
            try:
                await self._test_quietly(engine, next(iter(await self._residents.of(name)), None))
            except WirthforgeError as error:
                log.warning("engine not tested", engine=name, reason=error.message)
            except Exception:  # a plugin may do anything
                log.exception("engine not tested", engine=name)

    async def _test_quietly(self, engine: Engine, model: str | None) -> None:
        """Without making a model come, and only while nobody else is on it."""
        page = await engine.metrics()
        if model is None or (page is not None and read_running(page)):
            return
        found = await self._claimed(engine, lambda: self._examined_unless_needed(engine, model), is_again=False)
        if found is not None:
            log.info("engine tested", engine=engine.name, stops=found.stops, counts=found.counts, error=found.error)

    def _only_model(self, engine: Engine, health: Health) -> str | None:
        """Of an engine of which nobody knows what is in memory, and which the server does not move."""
        spec = self._roster.spec(engine.name)
        moves = spec is not None and spec.moves_models
        is_known = moves or isinstance(engine, Ollama) or getattr(engine, "dialect", engine.kind) != "openai"
        return None if is_known or len(health.models) != 1 else health.models[0].id

    async def _examined(self, engine: Engine, model: str, caused_by: str) -> Conformance:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._residency.use(engine.name, model, caused_by=caused_by))
            stack.enter_context(self._pool.using(engine))
            return await examine(engine, model, self._nonce(), self._clock)

    async def _examined_unless_needed(self, engine: Engine, model: str) -> Conformance | None:
        """None if somebody else came, or the model has left memory while Postgres was asked."""
        for place in self._residency.view():
            if (place.engine, place.model) == (engine.name, model) and (place.is_moving or not _is_there(place.state)):
                return None
        task = asyncio.create_task(self._examined(engine, model, f"test of {engine.name}"))
        try:
            while not await first_of(task, self._clock, GIVE_WAY_EVERY_MS):
                health = self._pool.health(engine.name)
                if health is None or health.in_use > 1 or any(place.waiting for place in self._residency.view()):
                    return None
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _claimed(
        self, engine: Engine, work: Callable[[], Awaitable[Conformance | None]], *, is_again: bool
    ) -> Conformance | None:
        """Do it if no other replica does; None if another does, or has done it, or it was given up.

        Args:
            is_again: also where the same engine was tested already.
        """
        identity = self._identity(engine)
        if not await self._claim(engine.name, identity, is_again=is_again):
            return None
        found = None
        try:
            found = await work()
        finally:
            await self._keep(engine.name, identity, found)
        if found is not None:
            self._known[engine.name] = identity, found
        return found

    async def _claim(self, name: str, identity: Identity, *, is_again: bool) -> bool:
        now = self._clock.now()
        until = now + timedelta(milliseconds=CLAIM_MS)
        row = ConformanceRow
        is_free = or_(row.claimed_until.is_(None), row.claimed_until < now)
        is_other = tuple_(row.kind, row.url, row.version) != (identity.kind, identity.url, identity.version)
        has_failed = row.found["error"].astext.is_not(None) & (row.tested_at < self._failed_before())
        wanted = is_free if is_again else is_free & or_(row.found.is_(None), is_other, has_failed)
        values = {"engine": name, **msgspec.to_builtins(identity), "claimed_until": until}
        claim = (
            insert(row)
            .values(values)
            .on_conflict_do_update(index_elements=[row.engine], set_={"claimed_until": until}, where=wanted)
            .returning(row.engine)
        )
        async with self._database.transaction() as session:
            return (await session.execute(claim)).first() is not None

    def _failed_before(self) -> datetime:
        """Tests that failed earlier are done again."""
        return self._clock.now() - timedelta(milliseconds=FAILED_AGAIN_MS)

    async def _keep(self, name: str, identity: Identity, found: Conformance | None) -> None:
        """What was found; nothing if the test was given up. The engine may be gone meanwhile."""
        values: dict[str, Any] = {"claimed_until": None}
        if found is not None:
            values |= msgspec.to_builtins(identity)
            values |= {"found": msgspec.to_builtins(found), "tested_at": self._clock.now()}
        async with self._database.transaction() as session:
            await session.execute(update(ConformanceRow).where(ConformanceRow.engine == name).values(**values))

    def _identity(self, engine: Engine) -> Identity:
        spec = self._roster.spec(engine.name)
        kind = engine.kind if spec is None else spec.kind
        return Identity(kind, address_of(engine, spec), getattr(engine, "version", None) or "")


def address_of(engine: Engine, spec: EngineSpec | None) -> str:
    """Where it is, without a password; empty for the engine of a plugin that is in the settings."""
    url = str(getattr(engine, "base_url", "")) if spec is None else spec.url
    parts = urlsplit(url.rstrip("/"))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _is_free(health: Health) -> bool:
    return health.is_up and not health.is_draining and not health.in_use and health.breaker == "closed"


def _identity(row: ConformanceRow) -> Identity:
    return Identity(row.kind, row.url, row.version)


def _is_same(tested: Identity, now: Identity) -> bool:
    """A version that is not told now may be the same."""
    return tested == now or (not now.version and (tested.kind, tested.url) == (now.kind, now.url))


def _is_there(state: State) -> bool:
    return state in {State.RESIDENT, State.BUSY}
