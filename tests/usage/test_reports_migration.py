"""The table of prices and the function of shares: there, and back, with rows in the tables that they look at."""

from collections.abc import AsyncIterator

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from server.db.migrate import MIGRATIONS, migrate
from server.db.session import Database, async_url
from server.usage.reports import Reports
from tests.clocks import BEGINNING, FakeClock
from tests.usage.parts import request, somebody, use

ANN = somebody()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The test's database."""
    database = Database(database_url, connections_max=1)
    yield database
    await database.close()


async def before(database_url: str) -> None:
    """To the step before, as the owner."""

    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, "0010")

    engine = create_async_engine(async_url(database_url))
    async with engine.begin() as connection:
        await connection.run_sync(run)
    async with engine.begin() as connection:
        found = "SELECT to_regclass('prices') IS NULL AND to_regproc('usage_shares') IS NULL"
        assert await connection.scalar(text(found))
    await engine.dispose()


async def test_usage_stays_and_is_reported_again(database: Database, database_url: str) -> None:
    """Prices go with their table; what was used does not."""
    await use(database, request(BEGINNING, of=ANN.id))
    await before(database_url)
    await migrate(database_url)
    # A connection of before knows the function that is gone.
    opened = Database(database_url, connections_max=1)
    reports = Reports(opened, FakeClock())
    total = (await reports.read(ANN, reports.question("day", first=None, last=None, zone="UTC"))).total
    assert (total["requests"], total["gpu_ms"]) == (1, 1_000)
    await opened.close()
