"""Usage, council runs and hardware samples by month, without copying what is there.

The table that is there becomes the partition of everything before the next month, below a new table that takes its
name, its keys, its policies and the app's rights. That its rows are from before is checked once, in one scan, for which
others wait; everything else takes milliseconds (benchmarks/migration_locks.py measures it). Rows of clocks that ran
ahead are moved to where they belong first.
"""

from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

APP = "wirthforge_app"
MONTHS_AHEAD = 2
OWN = "user_id = nullif(current_setting('wirthforge.user_id', true), '')::uuid"
EVERYBODYS = "current_setting('wirthforge.everybody', true) = 'on'"


class _Table(NamedTuple):
    """What makes a table: the column with the time, its keys, its indexes."""

    name: str
    by: str
    key: str
    indexes: dict[str, str]
    references: str = ""
    is_of_people: bool = True

    @property
    def key_name(self) -> str:
        return f"pk_{self.name}"


# The largest last: it is locked for the shortest time.
TABLES = (
    _Table(
        "hardware_samples",
        "at",
        "at, device_id",
        {},
        references="fk_hardware_samples_device_id FOREIGN KEY (device_id) REFERENCES hardware_devices (id)"
        " ON DELETE CASCADE",
        is_of_people=False,
    ),
    _Table(
        "council_runs",
        "id",
        "id",
        {
            "ix_council_runs_user_id_started_at": "(user_id, started_at)",
            "ix_council_runs_started_at_id": "(started_at, id)",
            "ix_council_runs_rated": "(user_id) WHERE feedback IS NOT NULL",
        },
    ),
    _Table("usage", "request_id", "request_id", {"ix_usage_user_id_started_at": "(user_id, started_at)"}),
)


def upgrade() -> None:
    """Put the tables below new ones, with partitions for the months that come."""
    borders = _borders()
    for table in TABLES:
        _part(table, borders)


def downgrade() -> None:
    """Take the old tables out again, and add to them what came since."""
    borders = _borders()
    for table in reversed(TABLES):
        _join(table, borders)


def _part(table: _Table, borders: list[tuple[str, int]]) -> None:
    old = f"{table.name}_before_{borders[0][0]}"
    first = _border(table, borders[0][1])
    op.execute(f"ALTER TABLE {table.name} RENAME TO {old}")
    for name in (table.key_name, *table.indexes):
        op.execute(f"ALTER INDEX {name} RENAME TO {name}_before")
    op.execute(f"CREATE TABLE {table.name} (LIKE {old} INCLUDING DEFAULTS) PARTITION BY RANGE ({table.by})")
    _add_keys(table, table.name)
    _open(table)
    _close(table, old)
    op.execute(f"CREATE TABLE {table.name}_default PARTITION OF {table.name} DEFAULT")
    for (name, begin), (_, end) in pairwise(borders):
        values = f"FROM ('{_border(table, begin)}') TO ('{_border(table, end)}')"
        op.execute(f"CREATE TABLE {table.name}_{name} PARTITION OF {table.name} FOR VALUES {values}")
    op.execute(
        f"WITH late AS (DELETE FROM {old} WHERE {table.by} >= '{first}' RETURNING *)"  # noqa: S608 (names of ours)
        f" INSERT INTO {table.name} SELECT * FROM late"
    )
    op.execute(f"ALTER TABLE {old} ADD CONSTRAINT before CHECK ({table.by} < '{first}') NOT VALID")
    op.execute(f"ALTER TABLE {old} VALIDATE CONSTRAINT before")
    op.execute(f"ALTER TABLE {table.name} ATTACH PARTITION {old} FOR VALUES FROM (MINVALUE) TO ('{first}')")
    op.execute(f"ALTER TABLE {old} DROP CONSTRAINT before")


def _join(table: _Table, borders: list[tuple[str, int]]) -> None:
    old = op.get_bind().scalar(
        sa.text(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
            " WHERE inhparent = CAST(:table AS regclass) AND starts_with(relname, :before)"
        ),
        {"table": table.name, "before": f"{table.name}_before_"},
    )
    if old is None:  # it was dropped, as something old may be
        old = f"{table.name}_before_{borders[0][0]}"
        op.execute(f"CREATE TABLE {old} (LIKE {table.name} INCLUDING DEFAULTS)")
        _add_keys(table, old, suffix="_before")
    else:
        op.execute(f"ALTER TABLE {table.name} DETACH PARTITION {old}")
    op.execute(f"INSERT INTO {old} SELECT * FROM {table.name}")  # noqa: S608 (names of ours)
    op.drop_table(table.name)
    op.execute(f"ALTER TABLE {old} RENAME TO {table.name}")
    for name in (table.key_name, *table.indexes):
        op.execute(f"ALTER INDEX {name}_before RENAME TO {name}")
    _open(table)


def _add_keys(table: _Table, name: str, suffix: str = "") -> None:
    op.execute(f"ALTER TABLE {name} ADD CONSTRAINT {table.key_name}{suffix} PRIMARY KEY ({table.key})")
    for index, what in table.indexes.items():
        op.execute(f"CREATE INDEX {index}{suffix} ON {name} {what}")
    if table.references:
        op.execute(f"ALTER TABLE {name} ADD CONSTRAINT {table.references}")


def _open(table: _Table) -> None:
    """For the app, and under the rules of migration 0009."""
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table.name} TO {APP}")
    if table.is_of_people:
        op.execute(f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table.name} FORCE ROW LEVEL SECURITY")
        own = f"{OWN} OR {EVERYBODYS}"
        op.execute(f"CREATE POLICY own ON {table.name} TO {APP} USING ({own}) WITH CHECK ({own})")
        op.execute(f"CREATE POLICY upkeep ON {table.name} TO CURRENT_USER USING (true) WITH CHECK (true)")


def _close(table: _Table, old: str) -> None:
    """Partitions have no rules, and the app may not name one."""
    op.execute(f"REVOKE ALL ON {old} FROM {APP}")
    if table.is_of_people:
        for policy in ("own", "upkeep"):
            op.execute(f"DROP POLICY {policy} ON {old}")
        op.execute(f"ALTER TABLE {old} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {old} DISABLE ROW LEVEL SECURITY")


def _borders() -> list[tuple[str, int]]:
    """The months that come: their names, and when they begin, in milliseconds."""
    query = sa.text(
        "SELECT to_char(month, 'YYYY_MM'), extract(epoch FROM month)::bigint * 1000 FROM generate_series("
        "date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month', date_trunc('month', now() AT TIME ZONE"
        " 'UTC') + :ahead * interval '1 month', interval '1 month') AS month"
    )
    return [(name, begin_ms) for name, begin_ms in op.get_bind().execute(query, {"ahead": MONTHS_AHEAD + 1})]


def _border(table: _Table, at_ms: int) -> str:
    """The smallest value of that time: a time, or a UUIDv7-like number."""
    if table.by != "at":
        return str(UUID(int=at_ms << 80))
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%d} 00:00:00+00"
