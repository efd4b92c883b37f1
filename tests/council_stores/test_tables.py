"""The tables of councils, and the columns of usage that point to them: forth, and back, with what is in them."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from server.db.migrate import migrate
from server.db.session import async_url
from tests.migrating import alembic, read

USAGE = (
    "INSERT INTO usage (request_id, user_id, surface, model, engine, input_tokens, output_tokens, queue_ms, total_ms,"
    " outcome, started_at{names}) VALUES (:id, :id, 'chat.completions', 'm', 'e', 1, 2, 3, 4, 'completed',"
    " now(){values})"
)
FILLED = (
    "INSERT INTO councils VALUES ('thinkers', ARRAY['a', 'b'], 'vote', NULL, 1, now(), now(), NULL)",
    "INSERT INTO skills VALUES ('a', 'open', 'answer', 1, 0.5, now())",
    "INSERT INTO contention VALUES ('host', 'a processor', 2, -0.5, 3, now())",
    (
        "INSERT INTO council_runs VALUES (gen_random_uuid(), gen_random_uuid(), 'council', 'duo', 'open', NULL, 2, '',"
        " 'worth', '{}', '[]', NULL, NULL, NULL, NULL, NULL, 'completed', now(), 1, NULL)"
    ),
)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Of a migrated database."""
    opened = create_async_engine(async_url(database_url))
    yield opened
    await opened.dispose()


async def execute(engine: AsyncEngine, *statements: str, **values: object) -> None:
    """In one transaction."""
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement), values)


async def test_the_tables_are_those_of_the_migrations(engine: AsyncEngine) -> None:
    """Nothing is in the classes that is not in the schema, and the other way round."""
    await alembic(engine, command.check)


async def test_usage_of_before_there_were_councils_stays(engine: AsyncEngine, database_url: str) -> None:
    """It belongs to none; and what belonged to one is still usage after a step back."""
    await alembic(engine, lambda config: command.downgrade(config, "0007"))
    before, later = uuid4(), uuid4()
    await execute(engine, USAGE.format(names="", values=""), id=before)
    await migrate(database_url)
    assert await read(engine, "SELECT request_id, council_id, role FROM usage") == [(before, None, None)]
    own = {"names": ", council_id, role", "values": ", :id, 'leader'"}
    await execute(engine, USAGE.format(**own), id=later)
    await alembic(engine, lambda config: command.downgrade(config, "0007"))
    assert {row[0] for row in await read(engine, "SELECT request_id FROM usage")} == {before, later}


async def test_filled_tables_go_and_come_back_empty(engine: AsyncEngine, database_url: str) -> None:
    """A step back drops what no older version knows; a step forward takes the same rows again."""
    for _ in range(2):
        await execute(engine, *FILLED)
        for name in ("councils", "skills", "contention", "council_runs"):
            assert await read(engine, f"SELECT count(*) FROM {name}") == [(1,)]  # noqa: S608 (names of ours)
        await alembic(engine, lambda config: command.downgrade(config, "0007"))
        assert await read(engine, "SELECT to_regclass('skills'), to_regclass('council_runs')") == [(None, None)]
        await migrate(database_url)
