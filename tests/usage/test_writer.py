"""The writer: whatever happens to it, to Redis or to Postgres, every settled event is one row in the end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import structlog
from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.engine import make_url

from quotas.ledger import Ledger
from server.clock import SystemClock
from server.db.models import Usage
from server.db.session import Database
from server.errors import Unavailable
from server.usage.writer import BATCH_MAX, FORGOTTEN_MS, RETRY_MS, UsageWriter
from tests.clocks import FakeClock

STREAM = "wf:{box}:settled"
ENGINE = "e"


def event(request: UUID | str = "", **fields: str | int) -> dict[str, str | int]:
    """A settled event."""
    return {
        "id": str(request or uuid4()),
        "model": "m",
        "surface": "chat.completions",
        "user": str(uuid4()),
        "key": "",
        "engine": ENGINE,
        "outcome": "completed",
        "input_tokens": 1,
        "output_tokens": 2,
        "queue_ms": 3,
        "first_token_ms": -1,
        "total_ms": 4,
        "started_at_ms": 1_800_000_000_000,
        **fields,
    }


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The test's database."""
    database = Database(database_url, connections_max=3)
    yield database
    await database.close()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


MakeWriter = Callable[[str], UsageWriter]


@pytest.fixture
def writer_named(ledger: Ledger, database: Database, clock: FakeClock) -> MakeWriter:
    """Makes writers."""
    return lambda name: UsageWriter(ledger, database, clock, reader=name)


async def rows_of(database: Database) -> dict[UUID, Usage]:
    """What is in Postgres."""
    async with database.transaction(everybody=True) as session:
        return {row.request_id: row for row in await session.scalars(select(Usage))}


async def settle(redis: Redis, *events: Any) -> list[str]:
    """Put events where the scripts put them; gives their ids."""
    for each in events:
        await redis.xadd(STREAM, each)
    return [str(each["id"]) for each in events]


async def empty(writer: UsageWriter) -> None:
    """Write until there is nothing more."""
    while await writer.step(wait_ms=1):
        pass


async def test_a_thousand_events_are_written_in_batches(
    redis: Redis, database: Database, writer_named: MakeWriter
) -> None:
    """More than a batch: all of them, once each, and nothing stays in Redis."""
    ids = await settle(redis, *(event() for _ in range(1_000)))
    writer = writer_named("one")
    sizes = [await writer.step(wait_ms=1) for _ in range(6)]
    assert sizes == [BATCH_MAX] * 5 + [0]
    assert {str(row) for row in await rows_of(database)} == set(ids)
    assert await redis.xlen(STREAM) == 0


async def test_two_writers_share_the_work(redis: Redis, database: Database, writer_named: MakeWriter) -> None:
    """At the same time, on one stream with every event twice, in any order: one row each."""
    ids = [uuid4() for _ in range(600)]
    await settle(redis, *(event(request) for request in ids), *(event(request) for request in reversed(ids)))
    await asyncio.gather(empty(writer_named("one")), empty(writer_named("two")))
    assert set(await rows_of(database)) == set(ids)
    assert await redis.xlen(STREAM) == 0


async def test_a_writer_that_died_after_the_commit_leaves_no_second_row(
    redis: Redis, database: Database, ledger: Ledger, writer_named: MakeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written, not acknowledged: another takes the events over and changes nothing."""
    dead, heir = writer_named("dead"), writer_named("heir")
    ids = await settle(redis, *(event() for _ in range(3)))
    await ledger.open_events()
    events = await ledger.events("dead", count_max=9, wait_ms=1)
    await redis.set("wf:other", 1)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "acknowledge", _dies)
        with pytest.raises(asyncio.CancelledError):
            await dead._write(events)
    assert len(await rows_of(database)) == 3
    assert await heir.step(wait_ms=1) == 0
    monkeypatch.setattr("server.usage.writer.FORGOTTEN_MS", 0)
    await heir.step(wait_ms=1)
    assert {str(row) for row in await rows_of(database)} == set(ids)
    assert await redis.xlen(STREAM) == 0


async def _dies(_events: Any, **_options: Any) -> None:
    raise asyncio.CancelledError


async def test_what_a_dead_writer_took_is_written_by_another(
    redis: Redis,
    database: Database,
    ledger: Ledger,
    writer_named: MakeWriter,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Taken, not written: the others look for such events now and then."""
    heir = writer_named("heir")
    await heir.step(wait_ms=1)
    await settle(redis, *(event() for _ in range(BATCH_MAX + 5)))
    await ledger.events("dead", count_max=1_000, wait_ms=1)
    monkeypatch.setattr("server.usage.writer.FORGOTTEN_MS", 0)
    clock.advance(timedelta(milliseconds=FORGOTTEN_MS))
    await heir.step(wait_ms=1)
    assert len(await rows_of(database)) == BATCH_MAX + 5
    assert await redis.xlen(STREAM) == 0


async def test_a_reply_that_was_lost_is_asked_for_again(
    redis: Redis, database: Database, ledger: Ledger, writer_named: MakeWriter
) -> None:
    """A writer that was stopped while events were on their way to it writes them before it leaves."""
    writer = writer_named("one")
    await writer.step(wait_ms=1)
    running = asyncio.create_task(writer.step(wait_ms=60_000))
    while not (await redis.client_list("normal"))[-1] or not await _blocked(redis):
        await SystemClock().sleep_ms(1)
    running.cancel()
    await asyncio.wait([running])
    await settle(redis, event())
    await ledger.events("one", count_max=9, wait_ms=1)  # what the lost reply held
    await writer.close()
    assert len(await rows_of(database)) == 1
    assert await redis.xinfo_consumers(STREAM, "usage") == []


async def _blocked(redis: Redis) -> bool:
    return any(client["cmd"] == "xreadgroup" and "b" in client["flags"] for client in await redis.client_list())


@pytest.mark.parametrize("first", ["abandoned", "completed", "cancelled"])
@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_the_replicas_word_counts_more_than_the_reapers(
    redis: Redis, database: Database, writer_named: MakeWriter, first: str, is_one_batch: bool
) -> None:
    """Abandoned gives way to any other end, whichever comes first and however they are batched."""
    writer, request = writer_named("one"), uuid4()
    other = "completed" if first == "abandoned" else "abandoned"
    tokens = {"abandoned": 5, "completed": 9, "cancelled": 9}
    for outcome in (first, other, "failed"):
        await settle(redis, event(request, outcome=outcome, output_tokens=tokens.get(outcome, 0)))
        if not is_one_batch:
            await writer.step(wait_ms=1)
    await writer.step(wait_ms=1)
    (row,) = (await rows_of(database)).values()
    assert (row.outcome, row.output_tokens) == ("completed" if first == "abandoned" else first, 9)


@pytest.mark.parametrize("first", ["earlier", "later"])
@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_of_two_that_were_abandoned_the_later_counts(
    redis: Redis, database: Database, writer_named: MakeWriter, first: str, is_one_batch: bool
) -> None:
    """The request had entered again between them, as Redis' clock tells, whichever is read first."""
    writer, request = writer_named("one"), uuid4()
    events = [
        event(request, outcome="abandoned", enqueued_ms=1_700_000_000_000 + number, output_tokens=number)
        for number in (1, 2)
    ]
    for each in events if first == "earlier" else reversed(events):
        await settle(redis, each)
        if not is_one_batch:
            await writer.step(wait_ms=1)
    await writer.step(wait_ms=1)
    (row,) = (await rows_of(database)).values()
    assert row.output_tokens == 2
    assert row.started_at == datetime.fromtimestamp(1_700_000_000.002, UTC)


UNREADABLE: list[dict[str, Any]] = [
    {"id": "no uuid"},
    {"user": "x"},
    {"input_tokens": "many"},
    {"input_tokens": 1 << 63},
    {"output_tokens": -(10**30)},
    {"total_ms": "9" * 5_000},
    {"queue_ms": "1.5"},
    {"queue_ms": ""},
    {"started_at_ms": 10**17},
    {"started_at_ms": 10**30},
    {"started_at_ms": -(10**17)},
    {"model": "a\0b"},
    {"first_token_ms": 10**20},
]


async def test_unreadable_events_stop_nobody(redis: Redis, database: Database, writer_named: MakeWriter) -> None:
    """Each is told in one line and set aside, whole; those before and behind it are written."""
    good = [event() for _ in range(len(UNREADABLE) + 1)]
    for each, bad in zip(good, UNREADABLE, strict=False):
        await settle(redis, each, {**event(), **bad})
    await redis.xadd(STREAM, {"nothing": "of use"})
    await settle(redis, good[-1])
    with structlog.testing.capture_logs() as lines:
        await empty(writer_named("one"))
    assert {str(row) for row in await rows_of(database)} == {each["id"] for each in good}
    told = [line for line in lines if line["event"] == "unreadable usage event"]
    assert len(told) == len(UNREADABLE) + 1
    assert all(len(line["error"]) < 300 for line in told)
    assert await redis.xlen(STREAM) == 0
    aside: Any = await redis.xrange("wf:{box}:unreadable")
    assert [fields["position"] for _, fields in aside] == [line["position"] for line in told]
    assert [fields["why"] for _, fields in aside] == [line["error"] for line in told]
    assert aside[0][1]["id"] == "no uuid"
    assert aside[-1][1]["nothing"] == "of use"


async def test_numbers_at_the_limits_are_kept(redis: Redis, database: Database, writer_named: MakeWriter) -> None:
    """As large as a column; a first token at once; a clock that went back."""
    largest = (1 << 63) - 1
    await settle(
        redis,
        event(input_tokens=largest, output_tokens=largest, total_ms=largest),
        event(first_token_ms=0, started_at_ms=0),
        event(queue_ms=-5, started_at_ms=253_402_300_799_000, model="ü" * 10_000),
    )
    await empty(writer_named("one"))
    rows = (await rows_of(database)).values()
    assert {row.input_tokens for row in rows} == {largest, 1}
    assert sorted(row.first_token_ms if row.first_token_ms is not None else -1 for row in rows) == [-1, -1, 0]
    assert min(row.queue_ms for row in rows) == -5


@asynccontextmanager
async def no_database(url: str, postgres_url: str) -> AsyncIterator[None]:
    """Take the database away from everybody, also from those who use it."""
    name = make_url(url).database
    admin = await asyncpg.connect(make_url(postgres_url).set(drivername="postgresql").render_as_string(False))  # noqa: FBT003
    end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
    await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await admin.fetch(end_all, name)
    await admin.execute(f"ALTER DATABASE {name} RENAME TO {name}_gone")
    try:
        yield
    finally:
        await admin.execute(f"ALTER DATABASE {name}_gone RENAME TO {name}")
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await admin.close()


async def test_events_pile_up_while_postgres_is_away_and_are_written_after(
    redis: Redis, database: Database, writer_named: MakeWriter, clock: FakeClock, database_url: str, postgres_url: str
) -> None:
    """Nothing is lost, nothing is twice, and the writer tells of it once."""
    writer = writer_named("one")
    await settle(redis, event())
    await writer.step(wait_ms=1)
    running = asyncio.create_task(writer.run())
    with structlog.testing.capture_logs() as lines:
        async with no_database(database_url, postgres_url):
            with pytest.raises(Unavailable):
                await database.ping()
            await settle(redis, *(event() for _ in range(300)))
            for _ in range(3):
                await _asleep(clock)
                clock.advance(timedelta(milliseconds=RETRY_MS))
            assert not running.done()
        while len(await rows_of(database)) < 301:
            clock.advance(timedelta(milliseconds=RETRY_MS))
            await SystemClock().sleep_ms(5)
    running.cancel()
    await asyncio.wait([running])
    assert [line["event"] for line in lines].count("usage waits") == 1
    assert await redis.xlen(STREAM) == 0


async def test_leaving_while_postgres_is_away_leaves_events_to_others(
    redis: Redis, writer_named: MakeWriter, database_url: str, postgres_url: str
) -> None:
    """A writer that cannot write ends all the same."""
    await settle(redis, event())
    async with no_database(database_url, postgres_url):
        await writer_named("one").close()
    assert await redis.xlen(STREAM) == 1


async def _asleep(clock: FakeClock) -> None:
    """Wait until the writer sleeps."""
    async with asyncio.timeout(10):
        while not any(not turn.done() for _, turn in clock._sleepers):
            await SystemClock().sleep_ms(1)


async def test_the_loss_of_redis_state_is_survived(
    redis: Redis, database: Database, writer_named: MakeWriter, clock: FakeClock
) -> None:
    """Without its reading group the writer makes a new one, and goes on."""
    writer = writer_named("one")
    running = asyncio.create_task(writer.run())
    await settle(redis, event())
    while len(await rows_of(database)) < 1:
        await SystemClock().sleep_ms(5)
    await redis.flushdb()
    await settle(redis, event())
    async with asyncio.timeout(10):
        while len(await rows_of(database)) < 2:
            clock.advance(timedelta(milliseconds=RETRY_MS))
            await SystemClock().sleep_ms(5)
    running.cancel()
    await asyncio.wait([running])
    assert len(await rows_of(database)) == 2
