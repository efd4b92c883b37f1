"""Promises: which engines are tested without anybody asking, when, by whom, and what is remembered of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from datetime import timedelta
from itertools import count

import pytest
from aiohttp import web
from sqlalchemy import select, update

from server.clock import SystemClock
from server.db.models import ConformanceRow
from server.db.session import Database
from server.engines.conformance import Conformance
from server.engines.kinds import Defaults, EngineSpec, load_kinds
from server.engines.ollama import Ollama
from server.engines.openai_compatible import OpenAICompatible
from server.engines.places import Load, Placed
from server.engines.pool import Pool
from server.engines.promises import CLAIM_MS, FAILED_AGAIN_MS, IDLE_MS_MIN, LOOK_EVERY_MS, Promises, address_of
from server.engines.protocol import Engine
from server.engines.registry import Registry
from server.engines.residents import Residents
from server.engines.roster import Roster
from server.errors import Conflict, InvalidRequest, NotFound, Unavailable
from tests.clocks import FakeClock
from tests.engines.raw_engine import Raw, reply, serve_raw
from tests.stand_ins.openai_engine import Order

NAME = "gpu"
# Of the caches; whether it stops cannot be told from this stand-in without a page of metrics.
REQUESTS_PER_TEST = 4


class Nothing:
    """A residency that moves nothing."""

    def use(self, engine: str, model: str, *, caused_by: str) -> AbstractAsyncContextManager[Load | None]:
        """At once."""
        del engine, model, caused_by
        return nullcontext()

    def view(self) -> list[Placed]:
        """Of no model is anything known."""
        return []


class Replica:
    """A replica's engines, and what it knows of them."""

    def __init__(self, database: Database, clock: FakeClock, engines: Sequence[Engine]) -> None:
        self.clock = clock
        self.pool = Pool(engines, clock=clock, on_probed=lambda _: None, on_pressure=lambda *_: None)
        kinds = load_kinds([])
        self.registry = Registry(database, clock, kinds, [engine.name for engine in engines])
        self.roster = Roster(
            self.registry,
            self.pool,
            kinds=kinds,
            defaults=Defaults(slots=4, silence_ms_max=2_000),
            clock=clock,
        )
        residency = Nothing()
        nonces = count()
        self.promises = Promises(
            database,
            clock,
            pool=self.pool,
            roster=self.roster,
            residency=residency,
            residents=Residents(self.pool, residency, database, clock, self._moves),
            nonce=lambda: f"nonce-{next(nonces)}-{id(self)}",
        )

    def _moves(self, name: str) -> bool:
        spec = self.roster.spec(name)
        return spec is not None and spec.moves_models

    async def pass_time(self, duration_ms: int) -> None:
        """Let it pass, and everything that then happens happen."""
        for step_ms in (duration_ms - LOOK_EVERY_MS, LOOK_EVERY_MS):
            self.clock.advance(timedelta(milliseconds=step_ms))
            await settled(self.clock)


async def settled(clock: FakeClock) -> None:
    """Until nothing has begun to sleep for a while: sockets and Postgres take real time."""
    async with asyncio.timeout(5):
        before = -1
        while before != len(clock._sleepers) or not clock._sleepers:
            before = len(clock._sleepers)
            await SystemClock().sleep_ms(60)


async def until(is_so: Callable[[], bool]) -> None:
    """Until it is so."""
    async with asyncio.timeout(5):
        while not is_so():
            await SystemClock().sleep_ms(5)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A connection of the replicas'."""
    opened = Database(database_url, connections_max=4)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> FakeClock:
    """Time that stands still."""
    return FakeClock()


def engine_at(url: str, kind: str = "vllm") -> OpenAICompatible:
    """An adapter, as the settings make it."""
    return OpenAICompatible(url, name=NAME, kind=kind, slots=4, silence_ms_max=2_000)


@asynccontextmanager
async def replica_of(database: Database, clock: FakeClock, *engines: Engine) -> AsyncIterator[Replica]:
    """A replica that runs and has looked at its engines once."""
    replica = Replica(database, clock, engines)
    await replica.pool.probe_all()
    running = asyncio.create_task(replica.promises.run())
    await settled(clock)
    try:
        yield replica
    finally:
        running.cancel()
        await asyncio.wait([running])
        await replica.pool.close()


async def test_an_engine_of_the_settings_is_tested_once_when_nobody_uses_it(
    database: Database, clock: FakeClock, order: Order, engine_url: str
) -> None:
    """Not at once; then what was found is kept for the other replicas and the next start, which do not test again."""
    async with replica_of(database, clock, engine_at(engine_url)) as replica:
        assert (replica.promises.found(NAME), replica.promises.stops(NAME)) == (None, "unknown")
        await replica.pass_time(IDLE_MS_MIN - LOOK_EVERY_MS)
        assert order.seen == []
        await replica.pass_time(LOOK_EVERY_MS)
        await until(lambda: replica.promises.found(NAME) is not None)
        found = replica.promises.found(NAME)
        assert found is not None
        assert (found.counts, found.error) == ("yes", None)
        await replica.pass_time(2 * IDLE_MS_MIN)
        assert len(order.seen) == REQUESTS_PER_TEST
    async with replica_of(database, clock, engine_at(engine_url)) as other:
        assert other.promises.found(NAME) == found
        await other.pass_time(2 * IDLE_MS_MIN)
        assert len(order.seen) == REQUESTS_PER_TEST


async def test_whether_it_stops_costs_a_request_nothing(database: Database, clock: FakeClock, engine_url: str) -> None:
    """The answer is in memory, also while Postgres is away."""
    async with replica_of(database, clock, engine_at(engine_url)) as replica:
        await replica.promises.test(NAME, "root")
        async with database.transaction(everybody=True) as session:
            found = {"stops": "no", "counts": "yes", "isolates": "yes", "stopped_after_ms": None, "error": None}
            await session.execute(update(ConformanceRow).values(found=found))
        await replica.promises.read()
        await database.close()
        assert replica.promises.stops(NAME) == "no"
        assert replica.promises.stops("another") == "unknown"


async def test_what_is_kept_in_another_form_is_as_if_nothing_were(
    database: Database, clock: FakeClock, engine_url: str
) -> None:
    """Another version of the server may have written it."""
    async with replica_of(database, clock, engine_at(engine_url)) as replica:
        await replica.promises.test(NAME, "root")
        async with database.transaction(everybody=True) as session:
            await session.execute(update(ConformanceRow).values(found={"stops": "perhaps"}))
        await replica.promises.read()
        assert replica.promises.found(NAME) is None


async def test_it_gives_way_to_people(database: Database, clock: FakeClock, order: Order, engine_url: str) -> None:
    """While somebody is on the engine nothing begins; a test that has begun ends, and is tried again later."""
    engine = engine_at(engine_url)
    async with replica_of(database, clock, engine) as replica:
        with replica.pool.using(engine):
            await replica.pass_time(2 * IDLE_MS_MIN)
        assert order.seen == []
        order.hold.clear()
        await replica.pass_time(LOOK_EVERY_MS)
        await replica.pass_time(IDLE_MS_MIN)
        await until(lambda: len(order.seen) == 1)
        with replica.pool.using(engine):
            await replica.pass_time(LOOK_EVERY_MS)
            async with asyncio.timeout(5):
                await order.gone.wait()
        order.hold.set()
        assert replica.promises.found(NAME) is None
        await replica.pass_time(LOOK_EVERY_MS)
        await replica.pass_time(IDLE_MS_MIN)
        await until(lambda: replica.promises.found(NAME) is not None)


async def test_another_kind_address_or_version_is_another_engine(
    database: Database, clock: FakeClock, engine_url: str
) -> None:
    """What is known of the one before is not told of it, and it is tested anew."""
    async with replica_of(database, clock, engine_at(engine_url)) as replica:
        await replica.promises.test(NAME, "root")
        for engine in (engine_at(engine_url, kind="sglang"), engine_at(engine_url.replace("127.0.0.1", "localhost"))):
            await replica.pool.change(engine)
            assert replica.promises.found(NAME) is None
            await replica.pass_time(IDLE_MS_MIN + LOOK_EVERY_MS)
            await until(lambda: replica.promises.found(NAME) is not None)
        engine.version = "2"
        assert replica.promises.found(NAME) is None
        await replica.promises.test(NAME, "root")
        assert replica.promises.found(NAME) is not None
        engine.version = ""  # a probe that failed
        assert replica.promises.found(NAME) is not None


async def test_of_two_replicas_one_tests(database: Database, clock: FakeClock, order: Order, engine_url: str) -> None:
    """The other one, and an admin who asks meanwhile, are kept off; a claim of a dead replica ends."""
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(replica_of(database, clock, engine_at(engine_url))) for _ in range(2)
        ]
        order.hold.clear()
        await one.pass_time(IDLE_MS_MIN)
        await until(lambda: len(order.seen) == 1)
        with pytest.raises(Conflict, match="is being tested"):
            await other.promises.test(NAME, "root")
        order.hold.set()
        await until(lambda: one.promises.found(NAME) is not None or other.promises.found(NAME) is not None)
        await one.pass_time(IDLE_MS_MIN)
        assert one.promises.found(NAME) == other.promises.found(NAME) is not None
        assert len(order.seen) == REQUESTS_PER_TEST
        async with database.transaction(everybody=True) as session:
            until_then = clock.now() + timedelta(milliseconds=CLAIM_MS)
            await session.execute(update(ConformanceRow).values(claimed_until=until_then))
        with pytest.raises(Conflict):
            await one.promises.test(NAME, "root")
        clock.advance(timedelta(milliseconds=CLAIM_MS + 1))
        assert isinstance(await one.promises.test(NAME, "root"), Conformance)


def listed(*models: str) -> list[bytes]:
    """A model list."""
    data = ",".join(f'{{"id":"{model}"}}' for model in models)
    return [reply(f'{{"data":[{data}]}}'.encode())]


def asked(raw: Raw) -> int:
    """How often it was asked to answer anything."""
    return raw.paths().count("/v1/chat/completions")


async def test_of_an_engine_of_which_nobody_knows_what_is_in_memory_nothing_is_asked(
    database: Database, clock: FakeClock
) -> None:
    """Not by itself; when it is added it is tested with the only model that it has, if it has but one."""
    async with AsyncExitStack() as stack:
        raw = await stack.enter_async_context(serve_raw(models=listed("a", "b")))
        replica = await stack.enter_async_context(replica_of(database, clock, engine_at(raw.url, kind="openai")))
        await replica.pass_time(2 * IDLE_MS_MIN)
        await replica.promises.test_new(NAME)
        raw.answers["/v1/models"] = listed("a")
        await replica.pool.probe_all()
        await replica.pass_time(IDLE_MS_MIN)
        assert asked(raw) == 0
        await replica.promises.test_new(NAME)
        assert asked(raw) == 1


async def test_a_llama_server_that_sleeps_or_routes_is_left_alone(database: Database, clock: FakeClock) -> None:
    """A router has no slots; one that has woken up is tested."""
    async with AsyncExitStack() as stack:
        raw = await stack.enter_async_context(serve_raw(models=listed("a")))
        engine = engine_at(raw.url, kind="llama-server")
        replica = await stack.enter_async_context(replica_of(database, clock, engine))
        for page in (b"{}", b'{"total_slots":4,"is_sleeping":true}'):
            raw.answers["/props"] = [reply(page)]
            await replica.pool.probe_all()
            await replica.pass_time(2 * IDLE_MS_MIN)
            await replica.promises.test_new(NAME)
        assert asked(raw) == 0
        raw.answers["/props"] = [reply(b'{"total_slots":4,"is_sleeping":false}')]
        await replica.pool.probe_all()
        await replica.pass_time(LOOK_EVERY_MS)
        await until(lambda: replica.promises.found(NAME) is not None)
        assert asked(raw) >= 1


async def test_ollama_is_tested_with_a_model_that_runs_there(database: Database, clock: FakeClock) -> None:
    """It loads whatever it is asked for, so it is asked for nothing else."""
    async with serve_raw() as raw:
        raw.answers["/api/tags"] = [reply(b'{"models":[{"model":"a","digest":"1"},{"model":"b","digest":"2"}]}')]
        raw.answers["/api/ps"] = [reply(b'{"models":[]}')]
        raw.answers["/api/show"] = [reply(b"{}")]
        raw.answers["/api/version"] = [reply(b'{"version":"0.32.14"}')]
        ollama = Ollama(raw.url, name=NAME, slots=1, silence_ms_max=500, clock=clock)
        async with replica_of(database, clock, ollama) as replica:
            await replica.pass_time(2 * IDLE_MS_MIN)
            assert asked(raw) == 0
            raw.answers["/api/ps"] = [reply(b'{"models":[{"model":"b","digest":"2"}]}')]
            await replica.pass_time(LOOK_EVERY_MS)
            await until(lambda: asked(raw) >= 1)
            bodies = [body for head, body in raw.seen if "/v1/chat/completions" in head]
            assert all(b'"model":"b"' in body for body in bodies)


async def test_one_whose_models_the_server_moves_waits_for_the_residency(
    database: Database, clock: FakeClock, order: Order, engine_url: str
) -> None:
    """As long as nobody knows where they are nothing is asked for."""
    replica = Replica(database, clock, [])
    spec = EngineSpec(name=NAME, kind="vllm", url=engine_url, moves_models=True)
    replica.roster._specs[NAME] = spec
    await replica.pool.change(engine_at(engine_url, kind="vllm"))
    await replica.promises.test_new(NAME)
    assert order.seen == []
    await replica.pool.close()


async def test_one_that_is_tested_for_whom_nobody_asked_may_fail_once(
    database: Database, clock: FakeClock, order: Order, engine_url: str
) -> None:
    """What went wrong is kept, and it is not tried again for an hour; an admin may."""

    async def refuse(*_: object) -> web.StreamResponse:
        return web.Response(status=500)

    order.behaviour = refuse
    async with replica_of(database, clock, engine_at(engine_url)) as replica:
        await replica.pass_time(3 * IDLE_MS_MIN)
        found = replica.promises.found(NAME)
        assert found is not None
        assert "failed with status 500" in str(found.error)
        assert len(order.seen) == 1
        order.behaviour = None
        assert (await replica.promises.test(NAME, "root")).error is None


async def test_one_that_failed_is_tested_again_after_an_hour(
    database: Database, clock: FakeClock, order: Order, engine_url: str
) -> None:
    """It may only have been busy."""

    async def refuse(*_: object) -> web.StreamResponse:
        return web.Response(status=500)

    order.behaviour = refuse
    async with replica_of(database, clock, engine_at(engine_url)) as replica:
        await replica.pass_time(3 * IDLE_MS_MIN)
        order.behaviour = None
        await replica.pass_time(FAILED_AGAIN_MS + 3 * IDLE_MS_MIN)
        found = replica.promises.found(NAME)
        assert found is not None
        assert found.error is None


async def test_who_asks_is_told_what_cannot_be_tested(database: Database, clock: FakeClock) -> None:
    """No such engine, one that is away, one without models; where nobody asked nothing is raised."""
    async with serve_raw(models=listed()) as raw:
        away = OpenAICompatible("http://127.0.0.1:9/v1", name="away", slots=1, silence_ms_max=500)
        async with replica_of(database, clock, engine_at(raw.url), away) as replica:
            for name, error in (("none", NotFound), ("away", Unavailable), (NAME, InvalidRequest)):
                with pytest.raises(error):
                    await replica.promises.test(name, "root")
                await replica.promises.test_new(name)
    async with database.transaction(everybody=True) as session:
        assert (await session.scalars(select(ConformanceRow))).all() == []


def test_what_is_kept_holds_no_password() -> None:
    """Of an address; the engine of a plugin may have none."""
    spec = EngineSpec(name=NAME, kind="openai", url="http://a:1/v1/")
    assert address_of(engine_at("http://ann:secret@a:1/v1"), None) == "http://a:1/v1"
    assert address_of(engine_at("http://b:1/v1"), spec) == "http://a:1/v1"
