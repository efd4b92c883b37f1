"""For tests of migrations: Alembic's commands on a database of the test's own, and a look at its rows."""

from collections.abc import Callable

from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from server.db.migrate import MIGRATIONS


async def alembic(engine: AsyncEngine, action: Callable[[Config], None]) -> None:
    """One of Alembic's commands."""

    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        action(config)

    async with engine.begin() as connection:
        await connection.run_sync(run)


async def read(engine: AsyncEngine, query: str) -> list[tuple[object, ...]]:
    """All rows."""
    async with engine.begin() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]
