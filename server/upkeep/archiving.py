"""Writes months that have become old into files, and drops them.

One month of one table after the other: its rows are written beside the file's place, read back and compared with what
Postgres says, row by row, and only then the file gets its name and a manifest. In one transaction its partition is
locked, found to hold what was written, detached and dropped, and the table `archives` learns the file's SHA-256. Until
that commits nothing refers to the file, and the next run writes it again; from then on the file is the only copy.

What came back because somebody opened it (restoring.py) goes again RESTORED_DAYS after that, once its conversation has
rested as long.
"""

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy import text

from server.clock import uuid7
from server.errors import Conflict
from server.upkeep.jobs import Turn, patiently
from server.upkeep.manifests import Written, describe, manifest_name
from server.upkeep.months import Month
from server.upkeep.parted import Partition, partitions_of
from server.upkeep.returning import bring_back
from server.upkeep.sheets import ARCHIVED, Archived, all_groups, arrow, groups, rows_of, same, writer
from server.upkeep.shelf import PART, Shelf, settle

RESTORED_DAYS = 30
TELL_EVERY_ROWS = 50_000
_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_REVISION = text("SELECT version_num FROM alembic_version")
_KNOWN = text("SELECT table_name, month, path FROM archives")
_COLUMNS = text(
    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped"
)
_ADD = text(
    "INSERT INTO archives (id, table_name, month, ends, path, generation, rows, file_bytes, sha256, revision,"
    " archived_at) VALUES (:id, :table, :month, :ends, :name, 1, :rows, :size_bytes, :sha256, :revision, :at)"
)
_RESTED = text(
    "SELECT a.id, a.table_name, a.path, a.sha256, array_agg(r.conversation_id) FROM restored_conversations AS r"
    " JOIN archives AS a ON a.id = r.archive_id LEFT JOIN conversations AS c ON c.id = r.conversation_id"
    " WHERE r.restored_at < :before AND (c.id IS NULL OR c.updated_at < :before) GROUP BY a.id ORDER BY a.path"
)
_FORGET_RESTORED = text(
    "DELETE FROM restored_conversations WHERE archive_id = :archive AND conversation_id = ANY(:conversations)"
)


class _Print(Struct, frozen=True):
    """What tells whether rows are the same: how many, and a sum of their hashes."""

    rows: int
    sum: str


async def archive(turn: Turn, shelf: Shelf, days: int) -> None:
    """The job. Raises OSError where the disk is full, and then everything is as it was; Conflict."""
    await _sweep(turn, shelf)
    old = turn.clock.now() - timedelta(days=days)
    done = 0
    for archived in ARCHIVED:
        async with turn.connection.begin():
            there = await partitions_of(turn.connection, archived.parted)
        for one in sorted(there or (), key=lambda one: one.name):
            if one.begins is not None and one.ends is not None and one.ends <= old:
                done += 1
                await _archive(turn, shelf, archived, one)
    await _put_back(turn, shelf)
    if not done:
        turn.tell(f"nothing that is older than {days} days")


async def _archive(turn: Turn, shelf: Shelf, archived: Archived, old: Partition) -> None:
    assert old.begins is not None
    month = Month.of(old.begins)
    name = file_name(archived, month, 1)
    if turn.is_dry:
        turn.tell(f"would write {old.name} into {name} and drop it")
        return
    await asyncio.to_thread(arrow)
    await _require_known(turn, archived)
    # Where a clock was ahead for a while, the month has been archived, and has got rows again.
    await bring_back(turn, shelf, archived, month)
    async with turn.connection.begin():
        await turn.connection.execute(_SNAPSHOT)
        found = await _print(turn, old.name)
        if found.rows:
            await _write(turn, shelf, archived, old.name, name, found)
    written = await _keep(turn, shelf, archived, month, name, found.rows) if found.rows else None
    await patiently(turn, archived.parted.name, partial(_drop, turn, archived, month, old, found, written))
    turn.tell(f"{old.name}: {found.rows} rows are in {name}" if found.rows else f"{old.name} was empty and is dropped")


async def _write(turn: Turn, shelf: Shelf, archived: Archived, partition: str, name: str, found: _Print) -> None:
    """The `.part`, read back and compared with what Postgres says in the same snapshot."""
    written = told = 0
    with shelf.writing(name) as file:
        sheet = writer(file, archived.schema)
        async for group in groups(turn.connection, archived, partition):
            await asyncio.to_thread(sheet.write_batch, group)
            written += group.num_rows
            if written - told >= TELL_EVERY_ROWS:
                told = written
                turn.tell(f"{partition}: {written} of {found.rows} rows written")
        sheet.close()
        await asyncio.to_thread(settle, file)
    try:
        await _compare(turn, shelf.part(name), archived, partition, found.rows)
    except BaseException:
        shelf.part(name).unlink(missing_ok=True)
        raise


async def _compare(turn: Turn, part: Path, archived: Archived, partition: str, rows: int) -> None:
    with part.open("rb") as file:
        read, compared = all_groups(file), 0
        async for group in groups(turn.connection, archived, partition):
            again = await asyncio.to_thread(next, read, None)
            if again is None or not same(again, group):
                raise Conflict(f"{partition}: what was written is not what is read back.")
            compared += group.num_rows
        if compared != rows or next(read, None) is not None:
            raise Conflict(f"{partition}: what was written is not what is read back.")


async def _keep(turn: Turn, shelf: Shelf, archived: Archived, month: Month, name: str, rows: int) -> Written:
    """Give the file its name, and say in a manifest what it is."""
    part = shelf.part(name)
    async with turn.connection.begin():
        revision = str(await turn.connection.scalar(_REVISION))
    written = Written(
        name=name,
        table=archived.parted.name,
        month=str(month),
        rows=rows,
        size_bytes=part.stat().st_size,
        sha256=await asyncio.to_thread(shelf.sha256, part),
        revision=revision,
    )
    shelf.keep(name)
    describe(shelf, written, archived.schema, turn.clock.now())
    return written


async def _drop(
    turn: Turn, archived: Archived, month: Month, old: Partition, found: _Print, written: Written | None
) -> None:
    """All of it or nothing: what was written is still all there is, goes, and is known to be in the file."""
    run = turn.connection.execute
    await run(text(f"LOCK TABLE {old.name} IN SHARE MODE"))
    if await _print(turn, old.name) != found:
        raise Conflict(f"{old.name} was changed while it was written; it is tried again with the next run.")
    await run(text(f"ALTER TABLE {archived.parted.name} DETACH PARTITION {old.name}"))
    await run(text(f"DROP TABLE {old.name}"))
    if written is not None:
        now = turn.clock.now()
        values = msgspec.structs.asdict(written) | {"id": uuid7(now), "ends": month.ends, "at": now}
        await run(_ADD, values)


async def _print(turn: Turn, partition: str) -> _Print:
    query = f"SELECT count(*), coalesce(sum(hashtextextended(one::text, 0)), 0)::text FROM {partition} AS one"  # noqa: S608
    row = (await turn.connection.execute(text(query))).one()
    return _Print(row[0], row[1])


async def _require_known(turn: Turn, archived: Archived) -> None:
    """Nothing is left out of a file because this version does not know of it."""
    table = archived.parted.name
    async with turn.connection.begin():
        columns = set(await turn.connection.scalars(_COLUMNS, {"table": table}))
    if columns != set(archived.table.columns.keys()):
        raise Conflict(f"{table} has other columns than this version knows: nothing of it is archived.")


async def _sweep(turn: Turn, shelf: Shelf) -> None:
    """Remove what was left by a run that was killed: unfinished files, and those that others have replaced.

    A file of a month that no row tells of is left alone: whoever asks may have connected to another database.
    """
    async with turn.connection.begin():
        known = [(f"{table}_{month}.", path) for table, month, path in await turn.connection.execute(_KNOWN)]
    current = {path for _, path in known} | {manifest_name(path) for _, path in known}
    for name in shelf.names():
        is_replaced = any(name.startswith(month) for month, _ in known) and name not in current
        if (name.endswith(PART) or is_replaced) and not turn.is_dry:
            shelf.remove(name)
            turn.tell(f"removed {name}, which a run that was killed had left")


async def _put_back(turn: Turn, shelf: Shelf) -> None:
    """Remove rows that had come back, and are in their file all the same."""
    before = turn.clock.now() - timedelta(days=RESTORED_DAYS)
    async with turn.connection.begin():
        rested = (await turn.connection.execute(_RESTED, {"before": before})).all()
    for archive_id, table, path, sha256, conversations in rested:
        if turn.is_dry:
            turn.tell(f"would remove the rows of {len(conversations)} conversations that {path} holds")
            continue
        async with shelf.trusted(path, sha256) as file:
            rows = await asyncio.to_thread(rows_of, file, [UUID(str(one)) for one in conversations])
        async with turn.connection.begin():
            gone = await turn.connection.execute(
                text(f"DELETE FROM {table} WHERE id = ANY(:ids)"),  # noqa: S608 (names of ours)
                {"ids": [row["id"] for row in rows]},
            )
            await turn.connection.execute(
                _FORGET_RESTORED, {"archive": archive_id, "conversations": list(conversations)}
            )
        turn.tell(f"{gone.rowcount} rows that had come back went again; they are in {path}")


def file_name(archived: Archived, month: Month, generation: int) -> str:
    """Of a month's file."""
    return f"{archived.parted.name}_{month}.{generation}.parquet"
