"""Takes out of the archive what people have removed: conversations, and everything of a person who is gone.

A file is not changed: the next generation of it is written without those rows, checked, named in the table `archives`,
and only then the old one is removed. One that is killed in between either still has the old file, and does it again, or
has the new one, and the old one goes with the next run of the archive (archiving.py). Of a file of which nothing is
left, `archives` first says that it has no rows, and forgets it when it is gone from the disk.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, BinaryIO
from uuid import UUID

from msgspec import Struct
from sqlalchemy import text

from server.errors import Conflict, Unavailable
from server.upkeep.jobs import Turn
from server.upkeep.manifests import Written, describe, manifest_name
from server.upkeep.sheets import all_groups, conversations, count_chosen, others, schema_of, writer
from server.upkeep.shelf import Shelf, settle

_ARCHIVES = text(
    "SELECT id, table_name, month, path, generation, rows, sha256, revision FROM archives WHERE rows > 0 ORDER BY path"
)
_GONE = text("SELECT one FROM unnest(CAST(:ids AS uuid[])) AS one EXCEPT SELECT id FROM conversations")
_REPLACE = text(
    "UPDATE archives SET path = :path, generation = :generation, rows = :rows, file_bytes = :bytes, sha256 = :sha256,"
    " rewritten_at = :at WHERE id = :id AND generation = :before"
)
_EMPTY = text("UPDATE archives SET rows = 0, rewritten_at = :at WHERE id = :id AND generation = :before")
_EMPTIED = text("SELECT id, path FROM archives WHERE rows = 0")
_REMOVE = text("DELETE FROM archives WHERE id = :id AND rows = 0")


class Rewritten(Struct, frozen=True):
    """One file of a receipt; `sha256_after` is None where nothing was left and the file is gone."""

    table: str
    month: str
    file: str
    rows_removed: int
    rows_left: int
    sha256_before: str
    sha256_after: str | None


class Receipt(Struct, frozen=True):
    """What was removed where.

    Attributes:
        problems: files that could not be looked into, and why: what they hold is still there.
    """

    files: Sequence[Rewritten]
    problems: Sequence[str]

    @property
    def rows_removed(self) -> int:
        """From all files."""
        return sum(one.rows_removed for one in self.files)


Note = Callable[[Rewritten], Awaitable[None]]


async def forget(
    turn: Turn,
    shelf: Shelf,
    *,
    people: Collection[UUID] = (),
    chats: Collection[UUID] = (),
    note: Note | None = None,
) -> Receipt:
    """Remove everything of these people, and these conversations, from all files.

    What is in tables is not touched. Asked again it finds nothing, and says so.

    Args:
        note: told of each file in the very transaction in which it is replaced.
    """
    await remove_emptied(turn, shelf)
    async with turn.connection.begin():
        archives = (await turn.connection.execute(_ARCHIVES)).all()
    files, problems = [], []
    for one in archives:
        try:
            gone = {who.bytes for who in people}, {chat.bytes for chat in chats}
            done = await _forget(turn, shelf, one, *gone, note=note)
        except Unavailable as error:
            problems.append(error.message)
            turn.tell(error.message)
        else:
            if done is not None:
                files.append(done)
                turn.tell(f"removed {done.rows_removed} rows from {one.path}")
    return Receipt(files, problems)


async def remove_emptied(turn: Turn, shelf: Shelf) -> None:
    """Remove files of which nothing is left, and then the rows that tell of them."""
    if turn.is_dry:
        return
    async with turn.connection.begin():
        emptied = (await turn.connection.execute(_EMPTIED)).all()
    for archive_id, path in emptied:
        shelf.remove(path)
        shelf.remove(manifest_name(path))
        async with turn.connection.begin():
            await turn.connection.execute(_REMOVE, {"id": archive_id})


async def forget_removed(turn: Turn, shelf: Shelf) -> None:
    """The job: what belongs to conversations that are not there any more. Raises Unavailable: a file was changed."""
    gone: set[UUID] = set()
    await remove_emptied(turn, shelf)
    async with turn.connection.begin():
        archives = (await turn.connection.execute(_ARCHIVES)).all()
    problem: Unavailable | None = None
    for one in archives:
        try:
            async with shelf.trusted(one.path, one.sha256) as file:
                held = await asyncio.to_thread(conversations, file)
        except Unavailable as error:
            problem = error
            continue
        async with turn.connection.begin():
            gone |= {UUID(str(each)) for each in await turn.connection.scalars(_GONE, {"ids": list(held)})}
    if not gone:
        turn.tell("the archive holds nothing that was removed")
    elif turn.is_dry:
        turn.tell(f"would remove {len(gone)} conversations from the archive")
    else:
        receipt = await forget(turn, shelf, chats=gone)
        turn.tell(f"removed {receipt.rows_removed} rows of {len(gone)} conversations")
    if problem is not None:
        raise problem


async def _forget(
    turn: Turn,
    shelf: Shelf,
    one: Any,  # noqa: ANN401 (a row)
    people: Collection[bytes],
    chats: Collection[bytes],
    *,
    note: Note | None,
) -> Rewritten | None:
    generation = one.generation + 1
    name = f"{one.table_name}_{one.month}.{generation}.parquet"
    async with shelf.trusted(one.path, one.sha256) as old:
        if not await asyncio.to_thread(_count, old, people, chats):
            return None
        schema = await asyncio.to_thread(schema_of, old)
        with shelf.writing(name) as new:
            left = await asyncio.to_thread(_copy, old, new, people, chats)
    part = shelf.part(name)
    if await asyncio.to_thread(_left, part.open("rb"), people, chats) != (left, 0):
        part.unlink()
        raise Conflict(f"{name}: what was written is not what is read back.")
    sha256, size_bytes = await asyncio.to_thread(shelf.sha256, part), part.stat().st_size
    if left:
        shelf.keep(name)
        written = Written(
            name=name,
            table=one.table_name,
            month=one.month,
            rows=left,
            size_bytes=size_bytes,
            sha256=sha256,
            revision=one.revision,
        )
        describe(shelf, written, schema, turn.clock.now())
    values = {
        "id": one.id, "before": one.generation, "generation": generation, "path": name, "rows": left,
        "bytes": size_bytes, "sha256": sha256, "at": turn.clock.now(),
    }  # fmt: skip
    done = Rewritten(
        one.table_name, one.month, one.path, one.rows - left, left, one.sha256.hex(), sha256.hex() if left else None
    )
    async with turn.connection.begin():
        await turn.connection.execute(_REPLACE if left else _EMPTY, values)
        if note is not None:
            await note(done)
    part.unlink(missing_ok=True)
    shelf.remove(one.path)
    shelf.remove(manifest_name(one.path))
    if not left:
        await remove_emptied(turn, shelf)
    return done


def _count(file: BinaryIO, people: Collection[bytes], chats: Collection[bytes]) -> int:
    return sum(count_chosen(group, people, chats) for group in all_groups(file))


def _copy(old: BinaryIO, new: BinaryIO, people: Collection[bytes], chats: Collection[bytes]) -> int:
    """All rows but those chosen; how many."""
    sheet, left = writer(new, schema_of(old)), 0
    for group in all_groups(old):
        kept = others(group, people, chats)
        if kept.num_rows:
            sheet.write_table(kept)
            left += kept.num_rows
    sheet.close()
    settle(new)
    return left


def _left(file: BinaryIO, people: Collection[bytes], chats: Collection[bytes]) -> tuple[int, int]:
    """How many rows there are, and how many of them should be gone."""
    with file:
        return sum(group.num_rows for group in all_groups(file)), _count(file, people, chats)
