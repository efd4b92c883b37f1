"""The stores of councils, over a real Postgres, in time that a test can pass."""

from collections.abc import AsyncIterator

import pytest

from server.council.runs import Runs
from server.council.skills import Skills
from server.db.session import Database
from tests.clocks import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Noon, until the test says otherwise."""
    return FakeClock()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An empty, migrated database."""
    database = Database(database_url, connections_max=5)
    yield database
    await database.close()


@pytest.fixture
def runs(database: Database, clock: FakeClock) -> Runs:
    """What councils did."""
    return Runs(database, clock)


@pytest.fixture
def skills(database: Database, clock: FakeClock, runs: Runs) -> Skills:
    """What is thought of models."""
    return Skills(database, clock, runs)
