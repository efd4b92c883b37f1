"""Makes the partitions of this month and the next ones before anything must go into them.

A new one is made beside its table, filled with what the default partition holds of its month, and attached, all in one
transaction: nobody ever sees a row missing or twice, and one that is killed leaves nothing. The default partition is
locked meanwhile. It is empty but for ids of clocks that were wrong, and what came back from the archive.

Only this month and MONTHS_AHEAD more are made, whatever the clock says, so one that jumps years ahead makes no more
than these. A month of before gets its partition too, where rows lie in the default one because nobody looked after the
tables for a while; unless it has been archived, since then its rows have come back and are to go again.
"""

from collections.abc import Collection, Sequence
from functools import partial

from sqlalchemy import text

from server.db.session import APP_ROLE
from server.upkeep.jobs import Turn, patiently
from server.upkeep.months import Month
from server.upkeep.parted import TABLES, Parted, Partition, partitions_of

MONTHS_AHEAD = 2
MONTHS_BACK_MAX = 24
_ARCHIVED = text("SELECT table_name, month FROM archives")
_HAS_ARCHIVES = text("SELECT to_regclass('archives') IS NOT NULL")


async def make_ahead(turn: Turn) -> None:
    """The job. Raises Conflict: a table is in use."""
    now = Month.of(turn.clock.now())
    archived = await archived_months(turn)
    made = 0
    for table in TABLES:
        async with turn.connection.begin():
            there = await partitions_of(turn.connection, table)
        if there is None:
            turn.tell(f"{table.name} is not divided into months yet: run `wirthforge migrate`")
            continue
        for month in await _missing(turn, table, there, now, archived):
            made += 1
            if turn.is_dry:
                turn.tell(f"would make {table.partition(month)}")
            else:
                moved = await make(turn, table, month)
                turn.tell(f"made {table.partition(month)}" + (f", with {moved} rows of the default" if moved else ""))
    if not made:
        turn.tell(f"all partitions up to {now.plus(MONTHS_AHEAD)} are there")


async def archived_months(turn: Turn) -> Collection[tuple[str, str]]:
    """Tables and months that are in files."""
    async with turn.connection.begin():
        if not await turn.connection.scalar(_HAS_ARCHIVES):
            return set()
        return {(table, month) for table, month in await turn.connection.execute(_ARCHIVED)}


async def _missing(
    turn: Turn, table: Parted, there: Sequence[Partition], now: Month, archived: Collection[tuple[str, str]]
) -> list[Month]:
    months = []
    for distance in range(-MONTHS_BACK_MAX, MONTHS_AHEAD + 1):
        month = now.plus(distance)
        if any(partition.covers(month) for partition in there):
            continue
        if distance >= 0 or ((table.name, str(month)) not in archived and await _has_rows(turn, table, month)):
            months.append(month)
    return months


async def _has_rows(turn: Turn, table: Parted, month: Month) -> bool:
    """Whether rows of the month are in the default partition."""
    query = text(f"SELECT EXISTS (SELECT FROM {table.default} WHERE {table.bounds(month)})")  # noqa: S608 (names of ours)
    async with turn.connection.begin():
        return bool(await turn.connection.scalar(query))


async def make(turn: Turn, table: Parted, month: Month) -> int:
    """One partition; returns how many rows were moved into it. Raises Conflict: the table is in use."""
    return await patiently(turn, table.name, partial(_make, turn, table, month))


async def _make(turn: Turn, table: Parted, month: Month) -> int:
    run, new = turn.connection.execute, table.partition(month)
    if table.references:  # before the partition, as those who write do
        await run(text(f"LOCK TABLE {table.references} IN SHARE ROW EXCLUSIVE MODE"))
    await run(text(f"LOCK TABLE {table.default} IN ACCESS EXCLUSIVE MODE"))
    await run(text(f"CREATE TABLE {new} (LIKE {table.name} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"))
    await run(text(f"REVOKE ALL ON {new} FROM PUBLIC, {APP_ROLE}"))
    moved = await run(
        text(
            f"WITH late AS (DELETE FROM {table.default} WHERE {table.bounds(month)} RETURNING *)"  # noqa: S608
            f" INSERT INTO {new} SELECT * FROM late"
        )
    )
    values = f"FROM ('{table.border(month)}') TO ('{table.border(month.plus(1))}')"
    await run(text(f"ALTER TABLE {table.name} ATTACH PARTITION {new} FOR VALUES {values}"))
    return moved.rowcount
