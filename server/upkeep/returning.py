"""Brings whole months back from files into their tables, and forgets the files.

For a step back to a version that knows no archive, and for a month that was archived while a clock was ahead and now
gets rows again. One transaction puts the rows into the month's partition and takes the file's row out of `archives`;
the file goes after that.
"""

import asyncio

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert

from server.upkeep.forgetting import remove_emptied
from server.upkeep.jobs import Turn
from server.upkeep.manifests import manifest_name
from server.upkeep.months import Month
from server.upkeep.parted import partitions_of
from server.upkeep.partitions import make
from server.upkeep.sheets import ARCHIVED, Archived, all_groups, as_row, portions
from server.upkeep.shelf import Shelf

_ONE = text("SELECT id, path, sha256 FROM archives WHERE table_name = :table AND month = :month")
_ALL = text("SELECT DISTINCT month FROM archives ORDER BY month")
_REMOVE = text("DELETE FROM archives WHERE id = :id")


async def bring_back(turn: Turn, shelf: Shelf, archived: Archived, month: Month) -> int:
    """Have a month of a table in Postgres again, and in no file; returns how many rows came.

    Raises:
        Unavailable: its file is missing or was changed; nothing has come back.
    """
    table = archived.parted
    await remove_emptied(turn, shelf)
    async with turn.connection.begin():
        one = (await turn.connection.execute(_ONE, {"table": table.name, "month": str(month)})).one_or_none()
        there = await partitions_of(turn.connection, table)
    if one is None:
        return 0
    count = 0
    async with shelf.trusted(one.path, one.sha256) as file:
        if not any(partition.covers(month) for partition in there or ()):
            await make(turn, table, month)
        async with turn.connection.begin():
            remaining = all_groups(file)
            while (group := await asyncio.to_thread(next, remaining, None)) is not None:
                rows = [as_row(row) for row in await asyncio.to_thread(group.to_pylist)]
                for part in portions(rows, archived.table):
                    new = insert(archived.table).on_conflict_do_nothing().returning(archived.table.c.id)
                    count += len((await turn.connection.execute(new, part)).all())
            await turn.connection.execute(_REMOVE, {"id": one.id})
    shelf.remove(one.path)
    shelf.remove(manifest_name(one.path))
    turn.tell(f"{count} rows of {one.path} are in {table.partition(month)} again")
    return count


async def bring_all_back(turn: Turn, shelf: Shelf) -> None:
    """The same for all files. Raises Unavailable."""
    async with turn.connection.begin():
        months = [Month(*map(int, month.split("_"))) for month in await turn.connection.scalars(_ALL)]
    for month in months:
        for archived in ARCHIVED:
            if turn.is_dry:
                turn.tell(f"would bring {archived.parted.partition(month)} back")
            else:
                await bring_back(turn, shelf, archived, month)
    if not months:
        turn.tell("nothing is in the archive")
