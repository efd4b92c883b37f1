"""Partitions are there before anything must go into them."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from server.clock import uuid7
from server.db.session import APP_ROLE
from server.errors import Unavailable
from server.upkeep.jobs import Turn
from server.upkeep.months import Month
from server.upkeep.owner import Owner
from server.upkeep.parted import TABLES, smallest_id, time_of
from server.upkeep.partitions import MONTHS_AHEAD, make_ahead
from tests.upkeep.conftest import RunJob, StillClock, rows

MESSAGE = (
    "INSERT INTO messages (id, conversation_id, user_id, role, content, thinking, model, state, created_at, updated_at)"
    " VALUES (:id, :who, :who, 'user', 'secret', '', 'm', 'complete', now(), now())"
)
USAGE = (
    "INSERT INTO usage (request_id, user_id, surface, model, engine, input_tokens, output_tokens, queue_ms, total_ms,"
    " outcome, started_at) VALUES (:id, :who, 'chat', 'm', 'e', 1, 2, 3, 4, 'completed', now())"
)
SAMPLE = (
    "WITH device AS (INSERT INTO hardware_devices (uuid, kind, name) VALUES (:who, 'gpu', 'a card') RETURNING id)"
    " INSERT INTO hardware_samples (at, device_id) SELECT CAST(:at AS timestamptz), id FROM device"
)
times = st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(times, times)
def test_ids_belong_into_the_month_in_which_they_were_made(one: datetime, other: datetime) -> None:
    """The borders of a month are around the ids of its times, and around no others."""
    row_id, month = uuid7(one), Month.of(other)
    belongs = smallest_id(month.begins) <= row_id < smallest_id(month.ends)
    assert belongs == (Month.of(one) == month)
    made = time_of(row_id)
    assert made is not None
    assert abs(made - one) < timedelta(milliseconds=2)


@given(times, st.integers(-500, 500))
def test_months_follow_each_other(time: datetime, count: int) -> None:
    """Without a gap, in both directions, in the order of their names."""
    month = Month.of(time)
    assert month.ends == month.plus(1).begins
    assert month.begins <= time < month.ends
    if 1971 < month.plus(count).year < 9000:
        assert month.plus(count).plus(-count) == month
        assert (str(month.plus(count)) < str(month)) == (count < 0)


async def partitions(engine: AsyncEngine, table: str) -> set[str]:
    """Their names."""
    query = "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = to_regclass(:table)"
    return {str(name) for (name,) in await rows(engine, query, table=table)}


async def count(engine: AsyncEngine, table: str) -> object:
    """Its rows."""
    return (await rows(engine, f"SELECT count(*) FROM {table}"))[0][0]  # noqa: S608 (names of ours)


async def add(engine: AsyncEngine, time: datetime) -> UUID:
    """A row of that time in tables of each kind."""
    async with engine.begin() as connection:
        row_id = uuid7(time)
        for statement in (MESSAGE, USAGE):
            await connection.execute(text(statement), {"id": row_id, "who": row_id})
        await connection.execute(text(SAMPLE), {"at": time, "who": str(row_id)})
    return row_id


async def test_the_next_months_are_made_once(engine: AsyncEngine, clock: StillClock, run_job: RunJob) -> None:
    """Three months from now there are partitions up to the fifth; a second run finds nothing to do."""
    then = Month.of(clock.now()).plus(3)
    clock.time = then.begins + timedelta(days=3)
    told = await run_job(make_ahead)
    assert [result.outcome for result in told.results] == ["done"]
    for table in TABLES:
        there = await partitions(engine, table.name)
        assert {table.partition(then.plus(ahead)) for ahead in range(MONTHS_AHEAD + 1)} <= there
    made = [line for line in told.lines if line.startswith("made ")]
    assert len(made) == len(TABLES) * 3
    before = {table.name: await partitions(engine, table.name) for table in TABLES}
    told = await run_job(make_ahead)
    assert told.lines == [f"all partitions up to {then.plus(MONTHS_AHEAD)} are there"]
    assert before == {table.name: await partitions(engine, table.name) for table in TABLES}


async def test_a_dry_run_only_tells(engine: AsyncEngine, clock: StillClock, run_job: RunJob) -> None:
    """What it would make, which is what the next run makes."""
    clock.time += timedelta(days=70)
    before = await partitions(engine, "messages")
    told = await run_job(make_ahead, is_dry=True)
    assert await partitions(engine, "messages") == before
    assert told.lines
    assert [line.removeprefix("would make ") for line in told.lines] == [
        line.removeprefix("made ") for line in (await run_job(make_ahead)).lines
    ]


async def test_rows_that_came_too_early_move_to_their_month(
    engine: AsyncEngine, clock: StillClock, run_job: RunJob
) -> None:
    """What lay in the default partition is in the new one, whole, and is neither lost nor there twice."""
    month = Month.of(clock.now()).plus(5)
    ids = [await add(engine, month.begins), await add(engine, month.ends - timedelta(milliseconds=1))]
    other = await add(engine, month.ends)
    clock.time = month.begins
    assert await count(engine, "messages_default") == 3
    told = await run_job(make_ahead)
    assert f"made messages_{month}, with 2 rows of the default" in told.lines
    assert f"made messages_{month.plus(1)}, with 1 rows of the default" in told.lines
    for table in TABLES:
        assert await count(engine, table.default) == 0
    query = "SELECT tableoid::regclass::text, id, content FROM messages ORDER BY id"
    assert await rows(engine, query) == [
        *((f"messages_{month}", row_id, "secret") for row_id in ids),
        (f"messages_{month.plus(1)}", other, "secret"),
    ]
    assert await count(engine, "usage") == 3
    assert await count(engine, "hardware_samples") == 3
    # Keys and references hold in what was made.
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM hardware_devices"))
    assert await count(engine, "hardware_samples") == 0


async def test_months_that_nobody_looked_after_get_theirs(
    engine: AsyncEngine, clock: StillClock, run_job: RunJob
) -> None:
    """Where rows of a month that has passed lie in the default partition; no others, and nothing of long ago."""
    start = Month.of(clock.now())
    forgotten, ancient = start.plus(4), start.plus(-60)
    await add(engine, forgotten.begins)
    await add(engine, ancient.begins)
    clock.time = start.plus(7).begins
    await run_job(make_ahead)
    there = await partitions(engine, "messages")
    assert f"messages_{forgotten}" in there
    assert there.isdisjoint({f"messages_{start.plus(3)}", f"messages_{start.plus(5)}", f"messages_{ancient}"})
    assert await count(engine, "messages_default") == 1


async def test_a_clock_that_jumps_makes_no_hundreds(engine: AsyncEngine, clock: StillClock, run_job: RunJob) -> None:
    """Fifty years ahead, or back, are three partitions; and what was there stays as it was."""
    before, at = await partitions(engine, "messages"), clock.time
    for days in (50 * 365, -30 * 365, 0):
        clock.time = at + timedelta(days=days)
        await run_job(make_ahead)
    assert len(await partitions(engine, "messages") - before) == 6
    await add(engine, at)
    assert await count(engine, "messages_default") == 0


async def test_a_job_that_is_killed_leaves_nothing(engine: AsyncEngine, clock: StillClock, run_job: RunJob) -> None:
    """Killed after rows were moved: no partition is half there, no row is gone, and the next run does it."""
    month = Month.of(clock.now()).plus(3)
    await add(engine, month.begins)
    clock.time = month.begins
    before = await partitions(engine, "messages")
    waiting = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'wirthforge upkeep' AND wait_event_type = 'Lock' AND query LIKE 'ALTER TABLE %ATTACH%'"
    )
    async with engine.connect() as busy:
        await busy.execute(text("LOCK TABLE ONLY messages IN SHARE UPDATE EXCLUSIVE MODE"))
        job = asyncio.create_task(run_job(make_ahead))
        while not await rows(engine, waiting):
            assert not job.done()
        told = await job
    assert [result.outcome for result in told.results] == ["failed"]
    assert await partitions(engine, "messages") == before
    assert await count(engine, "messages_default") == 1
    assert (await run_job(make_ahead)).results[0].outcome == "done"
    assert await count(engine, f"messages_{month}") == 1


async def test_a_table_in_use_is_tried_again(engine: AsyncEngine, clock: StillClock, run_job: RunJob) -> None:
    """Somebody who reads for long is waited for shortly, so that nobody else is held up; then once more."""
    clock.time += timedelta(days=31)
    lines: list[str] = []
    async with engine.connect() as busy, asyncio.TaskGroup() as group:
        await busy.execute(text("SELECT count(*) FROM messages"))

        def release(line: str) -> None:
            lines.append(line)
            if len(lines) == 1:
                group.create_task(busy.rollback())

        async def patient(turn: Turn) -> None:
            await make_ahead(Turn(turn.connection, turn.clock, release))

        told = await run_job(patient)
    assert [(result.outcome, result.note) for result in told.results] == [("done", "")]
    assert lines[0] == "messages is in use; trying again"
    assert lines[1].startswith("made messages_")
    assert clock.slept_ms > 0


async def test_what_is_in_the_way_is_told(engine: AsyncEngine, clock: StillClock, run_job: RunJob) -> None:
    """A table of that name, which nobody here has made, is left alone, and rows stay where they are."""
    month = Month.of(clock.now()).plus(3)
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE TABLE messages_{month} (id uuid)"))
    await add(engine, month.begins)
    clock.time = month.begins
    told = await run_job(make_ahead)
    assert told.results[0].outcome == "failed"
    assert f'relation "messages_{month}" already exists' in told.results[0].note
    assert await count(engine, "messages_default") == 1


async def test_one_replica_at_a_time(clock: StillClock, owner: Owner, run_job: RunJob) -> None:
    """While one has its turn another one does nothing; afterwards it may."""
    clock.time += timedelta(days=70)
    async with owner.alone() as first:
        assert first is not None
        assert (await run_job(make_ahead)).results == []
    assert len((await run_job(make_ahead)).results) == 1


async def test_the_app_cannot_name_what_was_made(engine: AsyncEngine, clock: StillClock, run_job: RunJob) -> None:
    """Also where somebody has granted rights on everything that will be made."""
    async with engine.begin() as connection:
        await connection.execute(text(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {APP_ROLE}"))
    clock.time += timedelta(days=70)
    await run_job(make_ahead)
    query = (
        "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' AND relname LIKE :made"
        " AND has_table_privilege(:app, oid, 'SELECT')"
    )
    assert await rows(engine, query, app=APP_ROLE, made="%_" + str(Month.of(clock.now()))) == []


async def test_only_the_owner_looks_after_tables(database_url: str, engine: AsyncEngine) -> None:
    """Another login is told what to set."""
    name = f"wf_stranger_{uuid4().hex[:8]}"
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE ROLE {name} LOGIN"))
    stranger = Owner(make_url(database_url).set(username=name).render_as_string(hide_password=False))
    with pytest.raises(Unavailable, match="DATABASE_OWNER_URL"):
        async with stranger.alone():
            pytest.fail("it was let in")
    async with engine.begin() as connection:
        await connection.execute(text(f"DROP ROLE {name}"))
