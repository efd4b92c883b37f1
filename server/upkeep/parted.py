"""Tables that are divided by month: by a UUIDv7, whose first 48 bits are milliseconds, or by a time.

Borders are the smallest values of a month. What no month holds is in the default partition: ids of clocks that were
wrong, and messages that came back from the archive.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from server.upkeep.months import Month

TIME_BITS = 48
_BOUND = re.compile(r"FOR VALUES FROM \((?P<begins>.+?)\) TO \((?P<ends>.+?)\)")
_PARTITIONS = text(
    "SELECT relname, pg_get_expr(relpartbound, one.oid), pg_total_relation_size(one.oid), reltuples::bigint"
    " FROM pg_inherits JOIN pg_class AS one ON one.oid = inhrelid"
    " WHERE inhparent = to_regclass(:table) ORDER BY relname"
)
_IS_PARTED = text("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(:table)")


class Parted(Struct, frozen=True):
    """One of these tables.

    Attributes:
        by: the column that says the month.
        references: the table that its foreign key points to.
    """

    name: str
    by: str = "id"
    is_by_time: bool = False
    references: str | None = None

    @property
    def default(self) -> str:
        """The partition of what no month holds."""
        return f"{self.name}_default"

    def partition(self, month: Month) -> str:
        """The name of a month's."""
        return f"{self.name}_{month}"

    def border(self, month: Month) -> str:
        """The smallest value of a month, as SQL writes it between quotes."""
        if self.is_by_time:
            return f"{month.begins:%Y-%m-%d} 00:00:00+00"
        return str(smallest_id(month.begins))

    def bounds(self, month: Month) -> str:
        """A condition for its rows."""
        return f"{self.by} >= '{self.border(month)}' AND {self.by} < '{self.border(month.plus(1))}'"


TABLES = (
    Parted("messages"),
    Parted("member_answers"),
    Parted("usage", by="request_id"),
    Parted("council_runs"),
    Parted("hardware_samples", by="at", is_by_time=True, references="hardware_devices"),
)


class Partition(Struct, frozen=True):
    """A part of a table.

    Attributes:
        begins: its first moment; None where it has no beginning.
        ends: the first one after it; None where it has no end.
        bytes: with its indexes.
        rows: about; -1 where Postgres has not counted yet.
    """

    name: str
    begins: datetime | None
    ends: datetime | None
    is_default: bool
    bytes: int
    rows: int

    def covers(self, month: Month) -> bool:
        """Whether all of the month belongs into it."""
        return (
            not self.is_default
            and (self.begins is None or self.begins <= month.begins)
            and (self.ends is None or month.ends <= self.ends)
        )


def smallest_id(time: datetime) -> UUID:
    """The number from which on UUIDv7s are not older than this."""
    milliseconds = int(time.timestamp() * 1000)
    return UUID(int=min(max(milliseconds, 0), (1 << TIME_BITS) - 1) << 80)


def time_of(row_id: UUID) -> datetime | None:
    """When a UUIDv7 was made; None where it holds no time that a calendar knows."""
    try:
        return datetime.fromtimestamp((row_id.int >> 80) / 1000, UTC)
    except (ValueError, OverflowError):
        return None


async def partitions_of(connection: AsyncConnection, table: Parted) -> Sequence[Partition] | None:
    """All of a table; None where it has not been divided (before migration 0010)."""
    if not await connection.scalar(_IS_PARTED, {"table": table.name}):
        return None
    return [
        _partition(name, bound, size, rows)
        for name, bound, size, rows in await connection.execute(_PARTITIONS, {"table": table.name})
    ]


def _partition(name: str, bound: str, size: int, rows: int) -> Partition:
    found = _BOUND.match(bound)
    return Partition(
        name,
        None if found is None else _time(found["begins"]),
        None if found is None else _time(found["ends"]),
        found is None,
        size,
        rows,
    )


def _time(bound: str) -> datetime | None:
    """Of a border, as Postgres writes it; None for those without one."""
    if bound in ("MINVALUE", "MAXVALUE"):
        return None
    value = bound.strip("'")
    return datetime.fromisoformat(value) if " " in value else time_of(UUID(value))
