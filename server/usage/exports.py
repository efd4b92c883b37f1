"""Reports as files: CSV for spreadsheets, Parquet for programs.

A file is written completely before its first byte is sent: nobody's slow line keeps a transaction open, and a report
that turns out to be too large is refused instead of broken off. What is written waits on the disk, not in memory.

A spreadsheet takes text that begins with certain characters for a formula and runs it (CWE-1236). Names of models and
keys come from whoever asks, and an admin opens the file; so such text gets an apostrophe before it, and all text is
quoted, so that no other separator cuts it into cells (OWASP, CSV Injection).
"""

import asyncio
import tempfile
import unicodedata
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import date
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Literal, Protocol

from server.errors import Unavailable
from server.messages import Principal
from server.usage.prices import plain
from server.usage.reports import Column, Question, Reports, Value

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["csv", "parquet"]
MEDIA_TYPES: dict[Format, str] = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
IN_MEMORY_BYTES_MAX = 1 << 20
PART_BYTES = 1 << 16
MONEY_DIGITS, MONEY_DECIMALS = 38, 9
# Some have full-width forms, which spreadsheets in East Asia take for the same.
WIDE = ("EQUALS SIGN", "PLUS SIGN", "HYPHEN-MINUS", "COMMERCIAL AT")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", *(unicodedata.lookup(f"FULLWIDTH {name}") for name in WIDE))


class Files:
    """Makes them."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    async def make(self, principal: Principal, question: Question, kind: Format, *, everybody: bool) -> IO[bytes]:
        """A file, from its beginning; whoever gets it closes it.

        Raises:
            InvalidRequest: more rows than a file may have, or more work than a report may be.
            TooMany: this person waits for several already.
            Unavailable: Postgres is away, or the disk is full.
        """
        file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES_MAX)  # noqa: SIM115 (its reader closes it)
        try:
            batches = self._reports.batches(principal, question, everybody=everybody)
            async with aclosing(batches):
                writer = await asyncio.to_thread(_writer, kind, file, question)
                async for batch in batches:
                    await _on_disk(writer, batch)
            await _on_disk(writer, None)
        except BaseException:
            file.close()
            raise
        return file


async def parts_of(file: IO[bytes]) -> AsyncIterator[bytes]:
    """What is in a file, which is closed behind the last part."""
    with file:
        while part := await asyncio.to_thread(file.read, PART_BYTES):
            yield part


class Writer(Protocol):
    """Writes the rows of a report into a file."""

    def write(self, rows: Sequence[Sequence[Value]]) -> None:
        """Add rows."""
        ...

    def close(self) -> None:
        """Write what belongs to the end, and go back to the file's beginning."""
        ...


class CsvWriter:
    """RFC 4180, with a header."""

    def __init__(self, file: IO[bytes], question: Question) -> None:
        self._file = file
        self._add([column.name for column in question.columns])

    def write(self, rows: Sequence[Sequence[Value]]) -> None:
        """Add rows."""
        for row in rows:
            self._add(row)

    def close(self) -> None:
        """Go back to the beginning."""
        self._file.seek(0)

    def _add(self, row: Sequence[Value]) -> None:
        self._file.write((",".join(map(cell, row)) + "\r\n").encode())


def cell(value: Value) -> str:
    """A value as it stands in a CSV file: nothing is empty, text is quoted, and no text is a formula."""
    match value:
        case None:
            return ""
        case str():
            # Some programs drop blanks before they look.
            safe = f"'{value}" if value.lstrip(" \N{NO-BREAK SPACE}").startswith(FORMULA) else value
            return '"' + safe.replace('"', '""') + '"'
        case Decimal():
            return plain(value)
        case date():
            return value.isoformat()
        case _:
            return str(value)


class ParquetWriter:
    """Parquet, compressed with zstd; a row group for each batch."""

    def __init__(self, file: IO[bytes], question: Question) -> None:
        import pyarrow as pa  # noqa: PLC0415 (60 MB of memory, which few boxes need)
        import pyarrow.parquet as pq  # noqa: PLC0415

        days = question.days
        told = {"from": days.dates[0].isoformat(), "to": days.dates[-1].isoformat(), "tz": days.zone}
        self._file = file
        self._schema = pa.schema([pa.field(column.name, _type(pa, column)) for column in question.columns], told)
        self._from_rows = pa.RecordBatch.from_arrays
        self._array = pa.array
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, rows: Sequence[Sequence[Value]]) -> None:
        """Add rows."""
        columns = zip(*rows, strict=True)
        arrays = [self._array(list(values), field.type) for values, field in zip(columns, self._schema, strict=True)]
        self._writer.write_batch(self._from_rows(arrays, schema=self._schema))

    def close(self) -> None:
        """Write what belongs to the end, and go back to the beginning."""
        self._writer.close()
        self._file.seek(0)


def _writer(kind: Format, file: IO[bytes], question: Question) -> Writer:
    return CsvWriter(file, question) if kind == "csv" else ParquetWriter(file, question)


def _type(pa: "pa", column: Column) -> "pa.DataType":
    match column.kind:
        case "text":
            return pa.string()
        case "day":
            return pa.date32()
        case "whole":
            return pa.int64()
        case "money":
            return pa.decimal128(MONEY_DIGITS, MONEY_DECIMALS)


async def _on_disk(writer: Writer, rows: Sequence[Sequence[Value]] | None) -> None:
    """Write rows, or what belongs to the end, in a thread of its own."""
    try:
        await (asyncio.to_thread(writer.close) if rows is None else asyncio.to_thread(writer.write, rows))
    except OSError as error:
        # It must not look like a database that is away.
        raise Unavailable("The server has no room for the file. Its disk is full.", code="disk_full") from error
