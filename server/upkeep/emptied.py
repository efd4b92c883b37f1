"""Drops months of which no row is left, so that the disk gets their room back."""

from datetime import datetime
from functools import partial

from sqlalchemy import text

from server.upkeep.jobs import Turn, patiently
from server.upkeep.parted import Parted, partitions_of


async def drop_empty(turn: Turn, table: Parted, before: datetime) -> None:
    """Of one table, the months that ended before that time. Raises Conflict: the table is in use."""
    async with turn.connection.begin():
        there = await partitions_of(turn.connection, table)
    for one in there or ():
        if one.is_default or one.ends is None or one.ends > before or await _has_rows(turn, one.name):
            continue
        if turn.is_dry:
            turn.tell(f"would drop {one.name}, which is empty")
        elif await patiently(turn, table.name, partial(_drop, turn, table, one.name)):
            turn.tell(f"dropped {one.name}, which was empty")


async def _drop(turn: Turn, table: Parted, name: str) -> bool:
    run = turn.connection.execute
    if table.references:  # before the partition, as those who write do
        await run(text(f"LOCK TABLE {table.references} IN SHARE ROW EXCLUSIVE MODE"))
    await run(text(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"))
    if await turn.connection.scalar(_any(name)):
        return False
    await run(text(f"ALTER TABLE {table.name} DETACH PARTITION {name}"))
    await run(text(f"DROP TABLE {name}"))
    return True


async def _has_rows(turn: Turn, name: str) -> bool:
    async with turn.connection.begin():
        return bool(await turn.connection.scalar(_any(name)))


def _any(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
    return text(f"SELECT EXISTS (SELECT FROM {name})")  # noqa: S608 (names of ours)
