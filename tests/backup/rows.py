"""A row in every table there is, whoever adds the next one; in tables by month several, also of wrong clocks."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Column, MetaData, Table, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import create_async_engine

from server.clock import SystemClock, uuid7
from server.db.models import Base
from server.db.session import async_url
from server.upkeep.parted import TABLES

# What a CHECK asks for.
CHECKED: dict[tuple[str, str], Any] = {
    ("messages", "role"): "user",
    ("messages", "state"): "complete",
    ("prices", "until"): None,
    ("calibrations", "failure"): None,
    ("skills", "role"): "chair",
    ("quotas", "scope"): "default",
    ("quotas", "role"): None,
    ("quotas", "user_id"): None,
    ("users", "role"): "admin",
    ("cloud_policies", "scope"): "own",
    ("cloud_version", "id"): 1,
    ("egress", "kind"): "send",
    ("egress_head", "id"): 1,
}
BY = {table.name: table.by for table in TABLES}
# An id that begins with this time belongs to no month.
WRONG = datetime(2001, 2, 3, tzinfo=UTC)
WORDS = "Grüße, \t\"quoted\" \\N \n second line; 'single' \U0001f642"


def _value(column: Column[Any], at: datetime, number: int) -> Any:
    """Something of the column's type that is different for each row."""
    if (column.table.name, column.name) in CHECKED:
        return CHECKED[column.table.name, column.name]
    if isinstance(column.type, JSONB):
        return {"words": WORDS, "number": number, "list": [None, True, 1.5]}
    kind = column.type.python_type
    values: dict[type, Any] = {
        str: f"{column.name} {number} {WORDS}",
        int: number,
        float: number + 0.25,
        bool: True,
        bytes: number.to_bytes(32),
        datetime: at,
        date: at.date(),
        dict: {"words": WORDS},
        list: ["one", WORDS],
        UUID: uuid7(at),
    }
    return values[kind] if kind in values else kind(number)


def rows_of(metadata: MetaData, at: datetime) -> list[tuple[Table, dict[str, Any]]]:
    """Tables in an order in which they can be filled, each with its rows, all of one person."""
    who = uuid7(at)
    first: dict[Table, dict[str, Any]] = {}
    rows = []
    for number, table in enumerate(metadata.sorted_tables, 1):
        times = [at, at + timedelta(seconds=1), at + timedelta(days=31), WRONG] if table.name in BY else [at]
        for part, time in enumerate(times):
            row = {column.name: _value(column, time, 100 * number + part) for column in table.columns}
            for key in table.foreign_keys:
                if row[key.parent.name] is not None:
                    row[key.parent.name] = first.get(key.column.table, row)[key.column.name]
            if table.name == "users":
                row["id"] = who
            elif row.get("user_id") is not None:
                row["user_id"] = who
            first.setdefault(table, row)
            rows.append((table, row))
    return rows


async def fill(url: str) -> None:
    """Write them, as the owner."""
    engine = create_async_engine(async_url(url))
    async with engine.begin() as connection:
        for table, row in rows_of(Base.metadata, SystemClock().now()):
            await connection.execute(table.insert().values(row))
    await engine.dispose()


async def contents(url: str) -> dict[str, list[tuple[str, str]]]:
    """All rows of all tables that hold any themselves: where each is, and what it is.

    But for the note that a backup was made, which is written after it.
    """
    engine = create_async_engine(async_url(url))
    async with engine.connect() as connection:
        names = await connection.scalars(
            text(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
                " ORDER BY relname"
            )
        )
        found = {
            name: [
                (str(place), str(row))
                for place, row in await connection.execute(
                    text(f'SELECT tableoid::regclass, to_jsonb(one) FROM "{name}" AS one ORDER BY 2')  # noqa: S608
                )
                if (name, row.get("job")) != ("upkeep_runs", "backup")
            ]
            for name in names.all()
        }
    await engine.dispose()
    return found
