"""Everything of a person as one zip file: each table that holds something of theirs as JSON, archived months included.

It is written as it is read, a page at a time, so its size does not matter; between two pages no transaction is open,
so a slow line holds up nobody. Each page is read as its person, under the rules that hold for everything else. What is
only good for getting in (hashes of passwords, keys, cookies, links) is left out.

Rows that the archive takes away meanwhile are in the file all the same, some perhaps twice (they have the same id):
what is in tables is read first.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import msgspec
from sqlalchemy import Column, ColumnElement, Table, Text, func, literal, or_, select, tuple_

from server.clock import Clock
from server.db.models import AuditEntry, Base, User
from server.db.session import Database
from server.errors import TooMany, Unavailable
from server.upkeep.restoring import Archive
from server.upkeep.sheets import ARCHIVED

FORMAT, VERSION = "wirthforge account", 1
PAGE_ROWS_MAX = 500
PAGE_BYTES_MAX = 4 * 1024 * 1024
AT_ONCE_MAX = 2
SECRETS = {
    "users": ("password_hash",),
    "api_keys": ("key_hash",),
    "login_sessions": ("token_hash",),
    "setup_tokens": ("token_hash",),
    "cloud_consents": ("id",),
}

Row = dict[str, Any]


def tables_of_people() -> dict[str, tuple[Table, list[Column[Any]]]]:
    """Every table of which rows are a person's, by name, and the columns that say whose."""
    found = {name: (table, [table.c.user_id]) for name, table in Base.metadata.tables.items() if "user_id" in table.c}
    return {
        "users": (_table(User), [_table(User).c.id]),
        **dict(sorted(found.items())),
        "audit_log": (_table(AuditEntry), [_table(AuditEntry).c.actor_id, _table(AuditEntry).c.subject_id]),
    }


class AccountExport:
    """Makes them.

    Args:
        archive: what is in files.
    """

    def __init__(self, database: Database, archive: Archive, clock: Clock) -> None:
        self._database = database
        self._archive = archive
        self._clock = clock
        self._running: set[UUID] = set()

    def start(self, user_id: UUID) -> AsyncGenerator[bytes, None]:
        """The bytes of the file. Raises TooMany: one is being made for this person, or for too many others."""
        if user_id in self._running or len(self._running) >= AT_ONCE_MAX:
            raise TooMany(
                "An export is being made. Try again when it is done.", code="export_running", retry_after_s=30
            )
        return self._parts(user_id)

    async def _parts(self, user_id: UUID) -> AsyncGenerator[bytes, None]:
        self._running.add(user_id)
        try:
            sink, counts, problems = _Sink(), dict[str, int](), list[str]()
            with ZipFile(sink, "w") as file:  # type: ignore[call-overload]
                for name, (table, owners) in tables_of_people().items():
                    entry, counts[name] = file.open(self._entry(f"{name}.json"), "w", force_zip64=True), 0
                    with entry:
                        async with aclosing(self._pages(user_id, table, owners, problems)) as pages:
                            async for page in pages:
                                await asyncio.to_thread(entry.write, _lines(page, is_first=not counts[name]))
                                counts[name] += len(page)
                                yield sink.take()
                        entry.write(b"\n]\n" if counts[name] else b"[]\n")
                file.writestr(self._entry("about.json"), self._about(user_id, counts, problems))
            yield sink.take()
        finally:
            self._running.discard(user_id)

    def _entry(self, name: str) -> ZipInfo:
        now = self._clock.now()
        entry = ZipInfo(name, (now.year, now.month, now.day, now.hour, now.minute, now.second))
        entry.compress_type = ZIP_DEFLATED
        entry.external_attr = 0o600 << 16
        return entry

    def _about(self, user_id: UUID, counts: dict[str, int], problems: list[str]) -> bytes:
        told = {
            "format": FORMAT,
            "version": VERSION,
            "user_id": user_id,
            "written_at": self._clock.now(),
            "rows": counts,
            "left_out": {table: list(names) for table, names in SECRETS.items()},
            "problems": problems,
        }
        return msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"

    async def _pages(
        self, user_id: UUID, table: Table, owners: Sequence[Column[Any]], problems: list[str]
    ) -> AsyncGenerator[list[Row], None]:
        """All rows of a table that are somebody's, in tables and in files."""
        columns = [column for column in table.columns if column.name not in SECRETS.get(table.name, ())]
        whose, after = or_(*(owner == user_id for owner in owners)), None
        while True:
            rows, after = await self._page(user_id, table, columns, whose, after)
            if rows:
                yield rows
            if after is None:
                break
        if table in {each.table for each in ARCHIVED}:
            try:
                async with aclosing(self._archived(user_id, table)) as archived:
                    async for page in archived:
                        yield page
            except Unavailable as error:
                problems.append(error.message)

    async def _page(
        self,
        user_id: UUID,
        table: Table,
        columns: Sequence[Column[Any]],
        whose: ColumnElement[bool],
        after: tuple[Any, ...] | None,
    ) -> tuple[list[Row], tuple[Any, ...] | None]:
        """The next rows; and after what more would come, None where there is none."""
        keys = list(table.primary_key.columns)
        sizes = [func.coalesce(func.octet_length(column), 0) for column in columns if isinstance(column.type, Text)]
        measured = select(*keys, sum(sizes, literal(0))).where(whose).order_by(*keys).limit(PAGE_ROWS_MAX)
        query = select(*(column.label(f"column_{column.name}") for column in columns)).where(whose).order_by(*keys)
        if after is not None:
            measured = measured.where(tuple_(*keys) > tuple_(*after))
            query = query.where(tuple_(*keys) > tuple_(*after))
        async with self._database.transaction(of=user_id) as session:
            # How long texts are costs nothing to ask; the driver would hold many of them, whatever it is told.
            found = (await session.execute(measured)).all()
            count = _fitting([row[-1] for row in found])
            if not count:
                return [], None
            last = tuple(found[count - 1][:-1])
            read = await session.execute(query.where(tuple_(*keys) <= tuple_(*last)))
            rows = [dict(zip((column.name for column in columns), row, strict=True)) for row in read]
        return rows, None if count == len(found) < PAGE_ROWS_MAX else last

    async def _archived(self, user_id: UUID, table: Table) -> AsyncGenerator[list[Row], None]:
        """What is in files, but for what has come back from there."""
        page: list[Row] = []
        size = 0
        async with aclosing(self._archive.read(user_id, table.name)) as rows:
            async for _, row in rows:
                page.append(row)
                size += len(row["content"])
                if len(page) >= PAGE_ROWS_MAX or size >= PAGE_BYTES_MAX:
                    yield await self._absent(user_id, table, page)
                    page, size = [], 0
        if page:
            yield await self._absent(user_id, table, page)

    async def _absent(self, user_id: UUID, table: Table, rows: list[Row]) -> list[Row]:
        async with self._database.transaction(of=user_id) as session:
            there = set(await session.scalars(select(table.c.id).where(table.c.id.in_([row["id"] for row in rows]))))
        return [row for row in rows if row["id"] not in there]


def _fitting(sizes: Sequence[int]) -> int:
    """How many rows a page takes, from its first on."""
    size = 0
    for count, each in enumerate(sizes):
        if count and size + each > PAGE_BYTES_MAX:
            return count
        size += each
    return len(sizes)


class _Sink:
    """Where the zip file is written: bytes that wait to be taken. It cannot seek, so sizes come after each entry."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Take some."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits here that a flush could move."""

    def take(self) -> bytes:
        """All that was written since."""
        taken, self._parts = b"".join(self._parts), []
        return taken


def _lines(rows: Sequence[Row], *, is_first: bool) -> bytes:
    """Rows of an array, one on each line."""
    if not rows:
        return b""
    told = b",\n".join(msgspec.json.encode(row, enc_hook=str) for row in rows)
    return (b"[\n" if is_first else b",\n") + told


def _table(model: type[Base]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


async def written(parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Without the pieces that are empty, since a server takes one for the end."""
    async for part in parts:
        if part:
            yield part
