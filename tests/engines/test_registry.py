"""The registry's tables: what was known before they were divided is kept, forth and back."""

from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from server.db.migrate import MIGRATIONS, migrate
from server.db.session import async_url

FOUND = '{"stops": "no", "counts": "yes", "isolates": "unknown"}'


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Of a migrated database."""
    opened = create_async_engine(async_url(database_url))
    yield opened
    await opened.dispose()


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


async def test_the_tables_are_those_of_the_migrations(engine: AsyncEngine) -> None:
    """Nothing is in the classes that is not in the schema, and the other way round."""
    await alembic(engine, command.check)


async def test_what_was_found_moves_to_its_own_table_and_back(engine: AsyncEngine, database_url: str) -> None:
    """Of each engine that was tested; one that was not has no row."""
    await alembic(engine, lambda config: command.downgrade(config, "0005"))
    async with engine.begin() as connection:
        for name, learned in (("a", FOUND), ("b", None)):
            spec = '{"kind": "vllm", "url": "http://a:8000/v1/"}'
            await connection.execute(
                text(
                    "INSERT INTO engines (id, name, spec, api_key, learned, updated_at)"
                    " VALUES (:id, :name, CAST(:spec AS jsonb), '', CAST(:learned AS jsonb), now())"
                ),
                {"id": uuid4(), "name": name, "spec": spec, "learned": learned},
            )
    await migrate(database_url)
    rows = await read(engine, "SELECT engine, kind, url, version, found->>'stops' FROM conformance")
    assert rows == [("a", "vllm", "http://a:8000/v1", "", "no")]
    await alembic(engine, lambda config: command.downgrade(config, "0005"))
    assert await read(engine, "SELECT name, learned->>'stops' FROM engines ORDER BY name") == [("a", "no"), ("b", None)]
