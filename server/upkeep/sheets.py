"""Months of messages as Parquet: rows sorted by conversation, in small groups, compressed with zstd.

Each group tells the smallest and the largest conversation in it, so that one conversation is read without unpacking the
others. Ids are their 16 bytes, JSON is its text; everything else is what Postgres calls it. Any tool that reads Parquet
reads these files.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple
from uuid import UUID

from msgspec import Struct
from sqlalchemy import BigInteger, Column, DateTime, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from server.db.models import MemberAnswer, Message
from server.upkeep.parted import Parted

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

GROUP_ROWS_MAX = 2_000
GROUP_BYTES_MAX = 4 * 1024 * 1024
# A message may have tens of megabytes.
READ_ROWS = 25
ID_BYTES = 16
LEVEL = 9
STATEMENT_ROWS_MAX, STATEMENT_CHARACTERS_MAX = 500, 4_000_000
CONVERSATION = "conversation_id"
# What is the same in many rows.
REPEATED = [CONVERSATION, "user_id", "role", "model", "state", "finish_reason", "label", "message_id"]


class _Arrow(NamedTuple):
    pa: Any
    pc: Any
    pq: Any


@cache
def arrow() -> _Arrow:
    """PyArrow, which takes most of a second and 60 MB, and is needed only where something is in files."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    return _Arrow(pa, pc, pq)


class Archived(Struct, frozen=True):
    """A table whose months become files."""

    parted: Parted
    table: Table

    @property
    def schema(self) -> "pa.Schema":
        """Of its files."""
        pa = arrow().pa
        return pa.schema([pa.field(one.name, _type(one), nullable=bool(one.nullable)) for one in self.table.columns])

    def query(self, partition: str) -> str:
        """All rows of a partition, as they are written."""
        columns = ", ".join(_read(one) for one in self.table.columns)
        return f"SELECT {columns} FROM {partition} ORDER BY {CONVERSATION}, id"  # noqa: S608 (names of ours)


ARCHIVED = (
    Archived(Parted("messages"), Message.__table__),  # type: ignore[arg-type]
    Archived(Parted("member_answers"), MemberAnswer.__table__),  # type: ignore[arg-type]
)


_JSON = {one.name for each in ARCHIVED for one in each.table.columns if isinstance(one.type, JSONB)}


async def groups(connection: AsyncConnection, archived: Archived, partition: str) -> AsyncIterator["pa.RecordBatch"]:
    """The rows of a partition, in the groups in which they are written."""
    rows: list[Sequence[Any]] = []
    size = 0
    options = {"yield_per": READ_ROWS}
    async with connection.stream(text(archived.query(partition)), execution_options=options) as stream:
        async for row in stream:
            rows.append(row)
            size += sum(len(value) for value in row if isinstance(value, str | bytes))
            if len(rows) >= GROUP_ROWS_MAX or size >= GROUP_BYTES_MAX:
                yield await asyncio.to_thread(_group, archived.schema, rows)
                rows, size = [], 0
    if rows:
        yield await asyncio.to_thread(_group, archived.schema, rows)


def _group(schema: "pa.Schema", rows: Sequence[Sequence[Any]]) -> "pa.RecordBatch":
    columns = zip(*rows, strict=True)
    pa = arrow().pa
    return pa.record_batch([pa.array(one, field.type) for one, field in zip(columns, schema, strict=True)], schema)


def writer(file: BinaryIO, schema: "pa.Schema") -> "pq.ParquetWriter":
    """Into an open file; one group for each batch that it is given."""
    repeated = [name for name in REPEATED if name in schema.names]
    return arrow().pq.ParquetWriter(
        file, schema, compression="zstd", compression_level=LEVEL, use_dictionary=repeated,
        write_statistics=[CONVERSATION],
    )  # fmt: skip


def all_groups(file: BinaryIO) -> Iterator["pa.Table"]:
    """Everything in a file, group by group."""
    sheet = arrow().pq.ParquetFile(file)
    for index in range(sheet.num_row_groups):
        yield sheet.read_row_group(index)


def schema_of(file: BinaryIO) -> "pa.Schema":
    """What its columns are."""
    return arrow().pq.ParquetFile(file).schema_arrow


def conversations(file: BinaryIO) -> set[UUID]:
    """Whose rows are in a file."""
    column = arrow().pq.ParquetFile(file).read([CONVERSATION])[CONVERSATION]
    return {UUID(bytes=one) for one in arrow().pc.unique(column).to_pylist()}


def rows_of(file: BinaryIO, wanted: Collection[UUID]) -> list[dict[str, Any]]:
    """The rows of some conversations, as Postgres takes them."""
    sheet = arrow().pq.ParquetFile(file)
    ids = {one.bytes for one in wanted}
    position = sheet.schema_arrow.get_field_index(CONVERSATION)
    found: list[dict[str, Any]] = []
    for index in range(sheet.num_row_groups):
        seen = sheet.metadata.row_group(index).column(position).statistics
        if any(seen.min <= one <= seen.max for one in ids):
            group = sheet.read_row_group(index)
            found += map(as_row, group.filter(among(group, CONVERSATION, ids)).to_pylist())
    return found


def same(read: "pa.Table", group: "pa.RecordBatch") -> bool:
    """Whether what was read is what was written, every column of every row."""
    return bool(read.equals(arrow().pa.Table.from_batches([group])))


def chosen(group: "pa.Table", people: Collection[bytes], chats: Collection[bytes]) -> "pa.Array":
    """Which rows are of these people, or in these conversations."""
    return arrow().pc.or_(among(group, "user_id", people), among(group, CONVERSATION, chats))


def count_chosen(group: "pa.Table", people: Collection[bytes], chats: Collection[bytes]) -> int:
    """How many these are."""
    return arrow().pc.sum(chosen(group, people, chats)).as_py() or 0


def others(group: "pa.Table", people: Collection[bytes], chats: Collection[bytes]) -> "pa.Table":
    """All rows but these."""
    return group.filter(arrow().pc.invert(chosen(group, people, chats)))


def among(group: "pa.Table", column: str, ids: Collection[bytes]) -> "pa.Array":
    """Which rows have one of these ids."""
    return arrow().pc.is_in(group[column], value_set=arrow().pa.array(list(ids), arrow().pa.binary(ID_BYTES)))


def as_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a file, as Postgres takes it."""
    return {
        name: UUID(bytes=value)
        if isinstance(value, bytes)
        else json.loads(value)
        if name in _JSON and value is not None
        else value
        for name, value in row.items()
    }


def portions(rows: Sequence[dict[str, Any]], table: Table) -> Iterator[list[dict[str, Any]]]:
    """What one statement takes of them; columns that the table does not have any more are left out."""
    part: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        part.append({name: value for name, value in row.items() if name in table.columns})
        size += len(row["content"])
        if len(part) >= STATEMENT_ROWS_MAX or size >= STATEMENT_CHARACTERS_MAX:
            yield part
            part, size = [], 0
    if part:
        yield part


def _type(column: Column[Any]) -> "pa.DataType":
    pa = arrow().pa
    types = {Uuid: pa.binary(ID_BYTES), JSONB: pa.string(), Text: pa.string(), BigInteger: pa.int64()}
    types[DateTime] = pa.timestamp("us", tz="UTC")
    return next(found for kind, found in types.items() if isinstance(column.type, kind))


def _read(column: Column[Any]) -> str:
    if isinstance(column.type, Uuid):
        return f"uuid_send({column.name})"
    return f"{column.name}::text" if isinstance(column.type, JSONB) else column.name
