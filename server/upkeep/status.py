"""What upkeep has to look after, as it is now."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from server.clock import Clock
from server.db.session import Database
from server.upkeep.months import Month
from server.upkeep.parted import TABLES, Parted, Partition, partitions_of
from server.upkeep.partitions import MONTHS_AHEAD

ROWS_COUNTED_MAX = 10_000
_ARCHIVED = text(
    "SELECT count(*), coalesce(sum(rows), 0)::bigint, coalesce(sum(file_bytes), 0)::bigint,"
    " (SELECT count(DISTINCT conversation_id) FROM restored_conversations) FROM archives"
)

_RUNS = text("SELECT job, began_at, ended_at, took_ms, outcome, said FROM upkeep_runs")


class TableStatus(Struct, frozen=True):
    """A table and its partitions.

    Attributes:
        missing: months that should have a partition and have none.
        in_default: rows that no month holds, counted up to ROWS_COUNTED_MAX.
    """

    name: str
    partitions: Sequence[Partition]
    missing: Sequence[Month]
    in_default: int


class RunStatus(Struct, frozen=True):
    """The last run of a job; without an end it runs, or was killed."""

    job: str
    began_at: datetime
    ended_at: datetime | None
    took_ms: int | None
    outcome: str | None
    said: str


class ArchiveStatus(Struct, frozen=True):
    """The archive: files, rows in them, their bytes, and how many conversations came back from it for now."""

    files: int
    rows: int
    bytes: int
    restored: int


async def tables(connection: AsyncConnection, clock: Clock) -> list[TableStatus]:
    """All tables that are divided into months."""
    async with connection.begin():
        return [
            await _table(connection, table, there, Month.of(clock.now()))
            for table in TABLES
            if (there := await partitions_of(connection, table)) is not None
        ]


async def archived(connection: AsyncConnection) -> ArchiveStatus:
    """What is in files."""
    async with connection.begin():
        return ArchiveStatus(*(await connection.execute(_ARCHIVED)).one())


async def runs(connection: AsyncConnection) -> dict[str, RunStatus]:
    """The last run of each job that ever ran, by its name."""
    async with connection.begin():
        return {row.job: RunStatus(*row) for row in await connection.execute(_RUNS)}


async def last_runs(database: Database) -> list[RunStatus]:
    """The same, as the server may read it. Raises Unavailable."""
    async with database.transaction() as session:
        return [RunStatus(*row) for row in await session.execute(_RUNS)]


async def _table(connection: AsyncConnection, table: Parted, there: Sequence[Partition], now: Month) -> TableStatus:
    wanted = [now.plus(ahead) for ahead in range(MONTHS_AHEAD + 1)]
    query = f"SELECT count(*) FROM (SELECT FROM {table.default} LIMIT {ROWS_COUNTED_MAX}) AS first"  # noqa: S608
    return TableStatus(
        table.name,
        there,
        [month for month in wanted if not any(partition.covers(month) for partition in there)],
        await connection.scalar(text(query)) or 0,
    )
