"""Migrations that are killed, and databases of a version that is newer than the server."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from server.clock import SystemClock
from server.db.session import async_url
from server.upkeep.owner import MIGRATING
from tests.conftest import _with_database, execute
from tests.operations.installation import Installation, installation

POLL_MS = 5
pytestmark = pytest.mark.timeout(240)
_MIGRATES = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = :lock")


@pytest.fixture
async def empty_url(postgres_url: str) -> AsyncIterator[str]:
    """A database without a schema."""
    name = f"wirthforge_empty_{uuid4().hex[:8]}"
    await execute(postgres_url, f"CREATE DATABASE {name}")
    yield _with_database(postgres_url, name)
    await execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def box(empty_url: str) -> Iterator[Installation]:
    """One with that database."""
    with installation(DATABASE_URL=empty_url) as made:
        yield made


async def test_a_migration_is_killed(box: Installation, empty_url: str) -> None:
    """In the midst of it, with SIGKILL: run once more it is done, and nothing is there twice."""
    clock = SystemClock()
    engine = create_async_engine(async_url(empty_url), isolation_level="AUTOCOMMIT")
    words = [sys.executable, "-m", "server", "migrate"]
    program = await asyncio.create_subprocess_exec(*words, cwd=box.home, env=box.variables)
    async with engine.connect() as connection:
        while not await connection.scalar(_MIGRATES, {"lock": MIGRATING}):
            assert program.returncode is None
            await clock.sleep_ms(POLL_MS)
    program.kill()
    await program.wait()
    await engine.dispose()
    box.do("a migration that was killed")


async def test_two_versions(box: Installation, empty_url: str) -> None:
    """What a newer version has migrated is refused by an older one, whatever it is asked for."""
    box.ask("wirthforge migrate")
    await execute(empty_url, "UPDATE alembic_version SET version_num = '9999'")
    box.do("two versions")
    refused = box.type("wirthforge serve --redis-url redis://127.0.0.1:1 --engine http://127.0.0.1:1/v1")
    assert refused.returncode == 1
    assert "it was migrated by a newer version" in refused.stdout
