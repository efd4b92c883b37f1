"""The parts of `server.accounts`, over a real Postgres and Redis, in time that a test can pass."""

from collections.abc import AsyncIterator

import pytest
from argon2 import PasswordHasher
from redis.asyncio import Redis

from quotas.ledger import Ledger
from server.accounts.access import Access
from server.accounts.keys import ApiKeys
from server.accounts.logins import Logins
from server.accounts.passwords import Passwords
from server.accounts.throttle import LoginThrottle
from server.accounts.users import Users
from server.db.session import Database
from tests.accounts.parts import CountingHasher
from tests.clocks import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Noon, until the test says otherwise."""
    return FakeClock()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An empty, migrated database."""
    database = Database(database_url, connections_max=10)
    yield database
    await database.close()


@pytest.fixture
def hasher() -> PasswordHasher:
    """Argon2 as always, but quick, and counted."""
    return CountingHasher()


@pytest.fixture
def passwords(hasher: PasswordHasher) -> Passwords:
    """Passwords that are hashed by it."""
    passwords = Passwords()
    passwords._hasher = hasher
    return passwords


@pytest.fixture
def access(ledger: Ledger, clock: FakeClock) -> Access:
    """The version of all this, as one replica knows it."""
    return Access(ledger, clock)


@pytest.fixture
def users(database: Database, access: Access, passwords: Passwords, clock: FakeClock) -> Users:
    """The people."""
    return Users(database, access, passwords, clock)


@pytest.fixture
def logins(database: Database, access: Access, passwords: Passwords, redis: Redis, clock: FakeClock) -> Logins:
    """Log-in, whose sessions last thirty days."""
    return Logins(database, access, passwords, LoginThrottle(redis), clock, days=30)


@pytest.fixture
def keys(database: Database, access: Access, clock: FakeClock) -> ApiKeys:
    """The keys."""
    return ApiKeys(database, access, clock)
