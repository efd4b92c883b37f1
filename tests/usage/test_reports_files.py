"""Reports as files: what a spreadsheet and a program read is what was used, and nothing is run."""

import csv
import errno
import io
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import IO

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.db.session import Database
from server.errors import InvalidRequest, Unavailable
from server.usage import reports as module
from server.usage.exports import CsvWriter, Files, Format, cell, parts_of
from server.usage.prices import Amounts, Prices
from server.usage.reports import Reports, Value
from tests.clocks import BEGINNING, FakeClock
from tests.usage.parts import request, somebody, use

ANN, BOB, ROOT = somebody("ann"), somebody("bob"), somebody("root", "admin")
DAY = timedelta(days=1)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The test's database."""
    database = Database(database_url, connections_max=2)
    yield database
    await database.close()


@pytest.fixture
def reports(database: Database) -> Reports:
    """Makes reports."""
    return Reports(database, FakeClock())


async def made(reports: Reports, by: str, kind: Format, *, everybody: bool = True) -> bytes:
    """A whole file."""
    question = reports.question(by, first=None, last=None, zone="UTC")
    file = await Files(reports).make(ROOT if everybody else ANN, question, kind, everybody=everybody)
    content = b"".join([part async for part in parts_of(file)])
    assert file.closed
    return content


async def test_a_spreadsheet_gets_csv(database: Database, reports: Reports) -> None:
    """A header, quoted text, plain numbers, and nothing for what nobody knows."""
    await Prices(database, FakeClock()).put(
        ROOT, "*", Amounts(input_per_million=Decimal(1), output_per_million=Decimal(2)), BEGINNING - DAY
    )
    await use(database, request(BEGINNING - 2 * DAY, of=ANN.id), request(BEGINNING, of=BOB.id, model='a "b"'))
    assert (await made(reports, "day,model", "csv")).decode() == (
        '"day","model","requests","input_tokens","output_tokens","run_ms","gpu_ms","energy_mj","cost",'
        '"unpriced_requests","unmetered_requests"\r\n'
        '2026-11-21,"m",1,10,20,1000,1000,,,1,1\r\n'
        '2026-11-23,"a ""b""",1,10,20,1000,1000,,0.00005,0,1\r\n'
    )
    own = (await made(reports, "model", "csv", everybody=False)).decode()
    assert [row[0] for row in csv.reader(io.StringIO(own))] == ["model", "m"]


async def test_a_program_gets_parquet(database: Database, reports: Reports) -> None:
    """The same, with types; days are days, and money is decimal."""
    await Prices(database, FakeClock()).put(
        ROOT, "*", Amounts(input_per_million=Decimal(1), output_per_million=Decimal(2)), BEGINNING - DAY
    )
    await use(database, request(BEGINNING - 2 * DAY, of=ANN.id), request(BEGINNING, of=BOB.id, model="=1+1"))
    table = pq.read_table(io.BytesIO(await made(reports, "day,user,model", "parquet")))
    assert {field.name: str(field.type) for field in table.schema} == {
        "day": "date32[day]",
        **dict.fromkeys(("user_id", "user", "model"), "string"),
        **dict.fromkeys(("requests", "input_tokens", "output_tokens", "run_ms", "gpu_ms", "energy_mj"), "int64"),
        "cost": "decimal128(38, 9)",
        **dict.fromkeys(("unpriced_requests", "unmetered_requests"), "int64"),
    }
    rows = table.to_pylist()
    assert [(row["user_id"], row["model"], row["output_tokens"], row["cost"]) for row in rows] == [
        (str(ANN.id), "m", 20, None),
        (str(BOB.id), "=1+1", 20, Decimal("0.00005")),
    ]
    assert table.schema.metadata == {b"from": b"2026-10-25", b"to": b"2026-11-23", b"tz": b"UTC"}


async def test_nothing_is_a_file_too(reports: Reports) -> None:
    """A header, or a schema, without rows."""
    assert (await made(reports, "day", "csv")).count(b"\n") == 1
    assert pq.read_table(io.BytesIO(await made(reports, "day", "parquet"))).num_rows == 0


@pytest.mark.parametrize("kind", ["csv", "parquet"])
async def test_many_rows_come_in_batches(
    database: Database, reports: Reports, monkeypatch: pytest.MonkeyPatch, kind: Format
) -> None:
    """None is lost or doubled between them; and a file has so many rows, or is refused before its first byte."""
    monkeypatch.setattr(module, "BATCH", 7)
    rows = [request(BEGINNING, of=ANN.id, model=f"m{each:02}") for each in range(50)]
    await use(database, *rows)
    content = await made(reports, "model", kind)
    if kind == "csv":
        models = [row[0] for row in csv.reader(io.StringIO(content.decode()))][1:]
    else:
        models = pq.read_table(io.BytesIO(content))["model"].to_pylist()
    assert models == [row["model"] for row in rows]
    question = reports.question("model", first=None, last=None, zone="UTC")
    with pytest.raises(InvalidRequest, match="more than 49 rows"):
        async for _ in reports.batches(ROOT, question, everybody=True, groups_max=49):
            pass


async def test_a_full_disk_says_so(database: Database, reports: Reports, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of that the database is away; the connection is free for the next one."""
    await use(database, request(BEGINNING, of=ANN.id))

    def fails(_self: CsvWriter, _rows: Sequence[Sequence[Value]]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(CsvWriter, "write", fails)
        with pytest.raises(Unavailable) as caught:
            await made(reports, "day", "csv")
        assert caught.value.code == "disk_full"
    assert (await made(reports, "day", "csv")).count(b"\n") == 2


async def test_a_client_that_leaves_leaves_no_file() -> None:
    """Whoever stops reading closes it."""
    file: IO[bytes] = io.BytesIO(b"x" * 200_000)
    parts = parts_of(file)
    async for part in parts:
        assert len(part) == 1 << 16
        break
    assert isinstance(parts, AsyncIterator)
    await parts.aclose()  # type: ignore[attr-defined]
    assert file.closed


FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "\N{NO-BREAK SPACE}=1",
    "＝1",
    "＋1",
    "－1",
    "＠1",
    "\0=1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_is_a_formula(text: str) -> None:
    """It begins with an apostrophe, and otherwise reads as it is."""
    assert cell(text) == "\"'" + text + '"'


def test_text_that_is_none_stays_as_it_is() -> None:
    """Also where such characters stand further on."""
    assert [cell(text) for text in ("llama-3", "a=b", "org/m@1", "", "'x")] == [
        '"llama-3"', '"a=b"', '"org/m@1"', '""', '"\'x"'
    ]  # fmt: skip


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_any_text_survives(texts: list[str]) -> None:
    """A reader of CSV finds as many cells as there were, each with its text; none begins as a formula does."""
    line = ",".join(map(cell, texts)) + "\r\n"
    ((*found,),) = csv.reader(io.StringIO(line, newline=""))
    assert [one.removeprefix("'") if one != text else one for one, text in zip(found, texts, strict=True)] == texts
    assert not any(one.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝")) for one in found)
