"""Usage, council runs and hardware samples become partitioned, and plain again, with all their rows."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from server.clock import SystemClock, uuid7
from server.db.migrate import migrate
from server.db.models import HardwareSample, Usage
from server.db.session import APP_ROLE, Database, async_url
from server.usage.writer import _UPSERT
from tests.migrating import alembic

USAGE = (
    "INSERT INTO usage (request_id, user_id, surface, model, engine, input_tokens, output_tokens, queue_ms, total_ms,"
    " outcome, started_at) VALUES (:id, :id, 'chat', 'm', 'e', 1, 2, 3, 4, 'completed', now())"
)
RUN = (
    "INSERT INTO council_runs VALUES (:id, :id, 'council', 'duo', 'open', NULL, 2, '', 'worth', '{}', '[]', NULL,"
    " NULL, NULL, NULL, NULL, 'completed', now(), 1, NULL)"
)
DEVICE = "INSERT INTO hardware_devices (uuid, kind, name) VALUES ('gpu', 'gpu', 'a card') RETURNING id"
SAMPLE = "INSERT INTO hardware_samples (at, device_id, power_mw) VALUES (:at, :device, 7)"
PARTED = ("usage", "council_runs", "hardware_samples")


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Of a migrated database, as its owner."""
    opened = create_async_engine(async_url(database_url))
    yield opened
    await opened.dispose()


async def back(engine: AsyncEngine) -> None:
    """To before there were partitions of these tables."""
    await alembic(engine, lambda config: command.downgrade(config, "0009"))


async def fill(engine: AsyncEngine, times: list[datetime]) -> set[UUID]:
    """A row in each table for each time; the ids."""
    ids = [uuid7(time) for time in times]
    async with engine.begin() as connection:
        device = await connection.scalar(text("SELECT id FROM hardware_devices")) or await connection.scalar(
            text(DEVICE)
        )
        for row_id, time in zip(ids, times, strict=True):
            for statement in (USAGE, RUN):
                await connection.execute(text(statement), {"id": row_id})
            await connection.execute(text(SAMPLE), {"at": time, "device": device})
    return set(ids)


async def found(engine: AsyncEngine) -> tuple[set[UUID], set[UUID], set[datetime]]:
    """What is in the tables."""
    async with engine.begin() as connection:
        return (
            set(await connection.scalars(text("SELECT request_id FROM usage"))),
            set(await connection.scalars(text("SELECT id FROM council_runs"))),
            set(await connection.scalars(text("SELECT at FROM hardware_samples"))),
        )


async def places(engine: AsyncEngine, table: str) -> dict[str, int]:
    """How many rows each partition of a table holds."""
    async with engine.begin() as connection:
        rows = await connection.execute(text(f"SELECT tableoid::regclass::text, count(*) FROM {table} GROUP BY 1"))  # noqa: S608
        return {row[0]: row[1] for row in rows}


async def test_every_row_stays_on_the_way_there_and_back(engine: AsyncEngine, database_url: str) -> None:
    """Rows of before, of this month, and of clocks that ran ahead; and those that come in between."""
    now = SystemClock().now().replace(microsecond=0)
    times = [now - timedelta(days=400), now, now + timedelta(days=40), now + timedelta(days=4000)]
    await back(engine)
    ids = await fill(engine, times)
    await migrate(database_url)
    assert await found(engine) == (ids, ids, set(times))
    for table in PARTED:
        spread = await places(engine, table)
        assert sorted(spread.values()) == [1, 1, 2]
        assert spread[f"{table}_default"] == 1
        assert next(count for name, count in spread.items() if name.startswith(f"{table}_before_")) == 2
    later = [now + timedelta(seconds=1), now + timedelta(days=41)]
    ids |= await fill(engine, later)
    await back(engine)
    assert await found(engine) == (ids, ids, {*times, *later})
    for table in PARTED:
        assert set(await places(engine, table)) == {table}
    await migrate(database_url)
    assert await found(engine) == (ids, ids, {*times, *later})


async def test_the_way_back_needs_no_old_partition(engine: AsyncEngine) -> None:
    """If what was before has been dropped since, a plain table is made of the months."""
    now = SystemClock().now().replace(microsecond=0)
    async with engine.begin() as connection:
        names = await connection.scalars(
            text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhrelid::regclass::text LIKE '%_before_%'")
        )
        for name in names.all():
            await connection.execute(text(f"DROP TABLE {name}"))
    ids = await fill(engine, [later := now + timedelta(days=40)])
    await back(engine)
    assert await found(engine) == (ids, ids, {later})


async def test_the_schema_is_that_of_the_classes(engine: AsyncEngine, database_url: str) -> None:
    """Forth, and after a way back and forth again."""
    await alembic(engine, command.check)
    await back(engine)
    await migrate(database_url)
    await alembic(engine, command.check)


async def test_rights_are_on_the_tables_and_never_on_partitions(engine: AsyncEngine) -> None:
    """Policies are forced on what the app may name; what it may not name has none. And the same after a way back."""
    query = text(
        "SELECT relname, relispartition, relrowsecurity AND relforcerowsecurity, has_table_privilege(:app, one.oid,"
        " 'SELECT') OR has_table_privilege(:app, one.oid, 'DELETE'), (SELECT count(*) FROM pg_policy WHERE polrelid ="
        " one.oid) FROM pg_class AS one WHERE relname = ANY(:tables) OR relkind = 'r' AND one.oid IN (SELECT inhrelid"
        " FROM pg_inherits WHERE inhparent = ANY(SELECT to_regclass(name) FROM unnest(:tables) AS name))"
    )
    for partitions in (4, 0):  # before, the next month, the one after it, the default
        async with engine.begin() as connection:
            rows = (await connection.execute(query, {"app": APP_ROLE, "tables": list(PARTED)})).all()
        assert len(rows) == len(PARTED) * (1 + partitions)
        for name, is_partition, is_forced, is_open, policies in rows:
            is_of_people = name in ("usage", "council_runs")
            assert (is_forced, policies) == (is_of_people, 2 if is_of_people else 0), name
            assert is_open is not is_partition, name
        if partitions:
            await back(engine)


async def test_usage_is_still_written_once(database_url: str) -> None:
    """The writer's statement finds the row of a request wherever it lies, and an abandoned one gives way."""
    database = Database(database_url, connections_max=1)
    now = SystemClock().now()
    for request_id in (uuid7(now), uuid7(now - timedelta(days=100)), uuid4()):
        row = {
            "request_id": request_id, "user_id": request_id, "key_id": None, "surface": "chat", "model": "m",
            "engine": "e", "input_tokens": 1, "output_tokens": 0, "queue_ms": 0, "first_token_ms": None, "total_ms": 1,
            "pauses": 0, "paused_ms": 0, "council_id": None, "role": None, "started_at": now,
        }  # fmt: skip
        for outcome in ("abandoned", "completed", "abandoned"):
            async with database.transaction(everybody=True) as session:
                await session.execute(_UPSERT, [{**row, "outcome": outcome}])
        async with database.transaction(of=request_id) as session:
            kept = await session.get(Usage, request_id)
            assert kept is not None
            assert kept.outcome == "completed"
    await database.close()


async def test_samples_are_still_of_devices(engine: AsyncEngine, database_url: str) -> None:
    """One for a device at a time, wherever it lies; and they go with their device."""
    now = SystemClock().now().replace(microsecond=0)
    await fill(engine, [now, now + timedelta(days=40), datetime(2100, 1, 1, tzinfo=UTC)])
    database = Database(database_url, connections_max=1)
    async with database.transaction() as session:
        device = await session.scalar(text("SELECT id FROM hardware_devices"))
        await session.execute(
            insert(HardwareSample).on_conflict_do_nothing(), [{"at": now, "device_id": device, "power_mw": 8}]
        )
        assert await session.scalar(text("SELECT sum(power_mw) FROM hardware_samples")) == 21
        await session.execute(text("DELETE FROM hardware_devices"))
        assert await session.scalar(text("SELECT count(*) FROM hardware_samples")) == 0
    await database.close()
