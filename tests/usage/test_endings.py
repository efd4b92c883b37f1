"""The check on live data: real gates and real servers, while people come and go and parts are taken away."""

import asyncio
import dataclasses
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from quotas.ledger import Entry
from server.clock import SystemClock
from server.db.models import User
from server.db.session import Database
from server.embedded.redis import Redis as EmbeddedRedis
from server.errors import Unavailable
from server.settings import Settings
from server.usage.invariants import LedgerCheck
from server.usage.writer import UsageWriter
from tests.boxes import Box
from tests.clocks import BEGINNING
from tests.conftest import MakeBox
from tests.sharing import test_accounting
from tests.sharing.replicas import House, entry, house_of
from tests.sharing.test_accounting import Faulty, all_visits, gates_of
from tests.stand_ins.openai_engine import MODEL, Order
from tests.usage.test_writer import no_database

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
PATH = "/v1/chat/completions"
SETTLES_S_MAX = 40
USERS = {str(UUID(int=number)): name for number, name in enumerate(test_accounting.USERS, 1)}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Rows of four people."""
    database = Database(database_url, connections_max=3)
    async with database.transaction() as session:
        session.add_all(
            User(id=UUID(user), name=name, role="member", created_at=BEGINNING) for user, name in USERS.items()
        )
    yield database
    await database.close()


@pytest.fixture
async def house(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """Gates in real time, which the four people visit."""
    monkeypatch.setattr(test_accounting, "USERS", tuple(USERS))
    monkeypatch.setattr(test_accounting, "LIMITS", {user: test_accounting.LIMITS[name] for user, name in USERS.items()})
    monkeypatch.setattr(test_accounting, "entry", _entry_now)
    async with house_of(redis, Settings(queue_wait_ms_max=20_000, redis_grace_ms=2_000)) as house:
        yield house


def _entry_now(**options: Any) -> Entry:
    return dataclasses.replace(entry(**options), started_at_ms=int(SystemClock().now().timestamp() * 1000))


async def look_until(check: LedgerCheck, is_over: Callable[[], bool]) -> int:
    """Look again and again; how often that was."""
    looks = 0
    while not is_over():
        verdict = await check.run()
        assert verdict.is_well, verdict.broken
        looks += 1
        await SystemClock().sleep_ms(20)
    return looks


@pytest.mark.parametrize("what", ["nothing", "Redis forgets", "replies are lost"])
async def test_all_is_well_at_every_moment(
    house: House, database: Database, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Sixty visits to two gates, which end in every way and at any await, while it looks and rows are written."""
    chance = random.Random(what)  # noqa: S311 (a schedule, no secret)
    check = LedgerCheck(house.ledger, database, SystemClock())
    monkeypatch.setattr("server.usage.invariants.LOOK_AGAIN_MS", 100)
    monkeypatch.setattr("server.sharing.gate.TEND_MS", 50)
    monkeypatch.setattr("server.sharing.gate.RETRY_MS", 5)
    writer = UsageWriter(house.ledger, database, SystemClock(), reader="one")
    writing = asyncio.create_task(writer.run())
    gates = gates_of(house)
    if what == "replies are lost":
        lossless = house.ledger._run
        faulty = Faulty(house, chance)

        async def run(script: str, *arguments: str | int) -> Any:
            return await (lossless if script == "audit" else faulty)(script, *arguments)

        monkeypatch.setattr(house.ledger, "_run", cast("Any", run))
    visits = asyncio.create_task(all_visits(house, gates, chance, forgets=what == "Redis forgets"))
    assert await look_until(check, visits.done) > 0
    await visits
    async with asyncio.timeout(20):
        while (verdict := await check.run()).events:
            await SystemClock().sleep_ms(50)
    assert verdict.is_well
    assert (verdict.running, verdict.waiting) == (0, 0)
    assert sum(line.rows for line in verdict.lines) > 0
    writing.cancel()
    await asyncio.wait([writing])


# Real servers.


@pytest.fixture
async def own_redis() -> AsyncIterator[EmbeddedRedis]:
    """A Redis that may be stopped and started."""
    folder = Path(tempfile.mkdtemp(prefix="wf-"))
    redis = EmbeddedRedis(folder, SystemClock())
    await redis.start()
    yield redis
    await redis.stop()
    shutil.rmtree(folder)


async def is_well(box: Box, rows: int) -> bool:
    """Whether there are so many rows, nothing is left to be written, and all is well."""
    check = LedgerCheck(box.ledger, box.database, box.clock)
    verdict = None
    async with asyncio.timeout(SETTLES_S_MAX):
        while verdict is None or verdict.events or verdict.running or not verdict.is_well:
            # A pool that has not heard yet that Postgres is back says so once.
            with suppress(Unavailable):
                verdict = await check.run()
            await box.clock.sleep_ms(50)
        assert len(await box.usage(rows)) == rows
    return verdict.is_well


async def ask(client: httpx.AsyncClient, count: int) -> list[asyncio.Task[httpx.Response]]:
    """So many requests, which stand at the engine or wait."""
    return [asyncio.create_task(client.post(PATH, json=CHAT)) for _ in range(count)]


async def test_done_gone_and_a_dead_engine(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order
) -> None:
    """One is answered, one leaves in mid-answer, one's engine breaks off: three rows, and the sums are right."""
    box = await make_box(replace(settings, engines=(engine_url,)))
    ann = await box.person("ann")
    async with box.http(headers=ann.bearer) as client:
        assert (await client.post(PATH, json=CHAT)).status_code == 200
        order.tokens, order.held_after = 9, 3
        order.hold.clear()
        (leaving,) = await ask(client, 1)
        async with asyncio.timeout(10):
            while len(order.running) < 1:
                await box.clock.sleep_ms(10)
        assert (await LedgerCheck(box.ledger, box.database, box.clock).run()).running == 1
        leaving.cancel()
        await asyncio.wait([leaving])
        order.behaviour = _breaks
        await client.post(PATH, json=CHAT)
        order.hold.set()
    assert await is_well(box, 3)
    assert {row.outcome for row in await box.usage(3)} == {"completed", "cancelled", "failed"}


async def _breaks(_order: Order, _request: Any, _body: dict[str, Any]) -> Any:
    raise ConnectionError


@pytest.mark.parametrize("keeps_data", [True, False])
async def test_redis_restarts(
    make_box: MakeBox,
    settings: Settings,
    own_redis: EmbeddedRedis,
    engine_url: str,
    order: Order,
    *,
    keeps_data: bool,
) -> None:
    """In mid-stream, with its file or without: all is well afterwards."""
    box = await make_box(replace(settings, redis_url=own_redis.url, engines=(engine_url,), engine_slots=2))
    ann = await box.person("ann")
    order.tokens, order.held_after = 9, 3
    async with box.http(headers=ann.bearer) as client:
        assert (await client.post(PATH, json=CHAT)).status_code == 200
        assert await is_well(box, 1)
        order.hold.clear()
        asking = await ask(client, 4)
        async with asyncio.timeout(10):
            while len(order.running) < 2:
                await box.clock.sleep_ms(10)
        await own_redis.stop()
        if not keeps_data:
            for path in (own_redis._data_dir / "redis").iterdir():
                path.unlink()
        await own_redis.start()
        order.hold.set()
        assert [(await each).status_code for each in asking] == [200] * 4
    assert await is_well(box, 5)
    (rows,) = {line.rows for line in (await LedgerCheck(box.ledger, box.database, box.clock).run()).lines}
    # Without its file it counts those who waited, and those who ran if it heard of them before they ended.
    assert rows in ({5} if keeps_data else {2, 3, 4})


async def test_postgres_is_away_for_a_while(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order, database_url: str, postgres_url: str
) -> None:
    """Answers that run go on and end; their rows are written when it is back, each once."""
    box = await make_box(replace(settings, engines=(engine_url,)))
    ann = await box.person("ann")
    order.tokens, order.held_after = 9, 3
    order.hold.clear()
    async with box.http(headers=ann.bearer) as client:
        asking = await ask(client, 3)
        async with asyncio.timeout(10):
            while len(order.running) < 3:
                await box.clock.sleep_ms(10)
        async with no_database(database_url, postgres_url):
            order.hold.set()
            assert [(await each).status_code for each in asking] == [200] * 3
            async with asyncio.timeout(10):
                while await box.ledger._redis.xlen("wf:{box}:settled") < 3:
                    await box.clock.sleep_ms(10)
        assert await is_well(box, 3)
