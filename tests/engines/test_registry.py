"""The registry's tables: what was known before they were divided is kept, forth and back."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from server.db.migrate import migrate
from server.db.session import async_url
from tests.migrating import alembic, read

FOUND = '{"stops": "no", "counts": "yes", "isolates": "unknown"}'


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Of a migrated database."""
    opened = create_async_engine(async_url(database_url))
    yield opened
    await opened.dispose()


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
