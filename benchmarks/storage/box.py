"""A Postgres to fill, with the tables of today and partitions for the last year."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy.engine import make_url

from benchmarks.storage.rows import COLUMNS
from server.clock import SystemClock
from server.db.migrate import migrate
from server.db.session import Database
from server.embedded.postgres import Postgres
from server.upkeep.jobs import Turn
from server.upkeep.months import Month
from server.upkeep.owner import Owner
from server.upkeep.parted import TABLES, partitions_of
from server.upkeep.partitions import make
from server.upkeep.shelf import Shelf

MONTHS_BACK = 13


@dataclass
class Filled:
    """It, and ways into it.

    Attributes:
        folder: all that it keeps on the disk.
    """

    folder: Path
    owner: Owner
    url: str
    database: Database
    shelf: Shelf

    async def person(self, name: str) -> UUID:
        """Somebody."""
        who = uuid4()
        connection = await asyncpg.connect(self.url)
        await connection.execute("INSERT INTO users VALUES ($1, $2, 'member', NULL, now(), NULL)", who, name)
        await connection.close()
        return who

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[asyncpg.Connection]:
        """The owner's connection, which may COPY: that knows no row-level security, so it is not forced meanwhile."""
        connection = await asyncpg.connect(self.url)
        for table in COLUMNS:
            await connection.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        try:
            yield connection
        finally:
            for table in COLUMNS:
                await connection.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
            await connection.close()


@asynccontextmanager
async def filling() -> AsyncIterator[Filled]:
    """An empty one, which is gone after the block."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="wf-") as name:
        folder = Path(name)
        postgres = Postgres(folder, clock)
        await postgres.start()
        database = Database(postgres.url, connections_max=2)
        try:
            await migrate(postgres.owner_url)
            owner = Owner(postgres.owner_url)
            async with owner.connection() as connection:
                await _months(Turn(connection, clock, lambda _: None))
            plain = make_url(postgres.owner_url).set(drivername="postgresql").render_as_string(hide_password=False)
            yield Filled(folder, owner, plain, database, Shelf(folder / "archive"))
        finally:
            await database.close()
            await postgres.stop()


async def _months(turn: Turn) -> None:
    """Partitions for the months that are behind us."""
    now = Month.of(turn.clock.now())
    for table in TABLES:
        async with turn.connection.begin():
            there = await partitions_of(turn.connection, table) or ()
        for back in range(1, MONTHS_BACK + 1):
            month = now.plus(-back)
            if not any(partition.covers(month) for partition in there):
                await make(turn, table, month)
