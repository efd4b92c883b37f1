"""The one connection of upkeep: as the tables' owner, and in one replica at a time.

The turn is an advisory lock of the connection, which Postgres gives back when its holder dies.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from server.db.address import open_engine
from server.db.session import CONNECT_S_MAX
from server.errors import Unavailable
from server.tls import Untrusted

# Any number; all replicas of this project agree on it.
ADVISORY_LOCK = 7_010_012
# Migrations hold it while they run (migrations/env.py).
MIGRATING = 7_010_010
_IS_OWNER = text(
    "SELECT pg_has_role(current_user, relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('messages')"
)
_TRY = text("SELECT pg_try_advisory_lock(:lock)")


class Owner:
    """Who looks after the tables.

    Args:
        url: of the login that owns them (the setting `database_owner_url`, else `database_url`).
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection, in UTC; transactions are begun by whoever uses it.

        Raises:
            Unavailable: Postgres is away, has no schema yet, or this login does not own it.
        """
        settings = {"timezone": "UTC", "application_name": "wirthforge upkeep"}
        engine = open_engine(
            self._url,
            poolclass=NullPool,
            hide_parameters=True,  # errors are logged; what people wrote is not
            connect_args={"timeout": CONNECT_S_MAX, "server_settings": settings},
        )
        try:
            opened = await _connected(engine)
            try:
                await _require_owner(opened)
                yield opened
            finally:
                await opened.close()
        finally:
            await engine.dispose()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[AsyncConnection | None]:
        """The same for one replica at a time: None where another one has it. Raises Unavailable."""
        async with self.connection() as opened:
            async with opened.begin():
                is_ours = await opened.scalar(_TRY, {"lock": ADVISORY_LOCK})
            yield opened if is_ours else None


async def _connected(engine: AsyncEngine) -> AsyncConnection:
    try:
        return await engine.connect()
    except Untrusted as error:
        raise Unavailable(
            f"Postgres cannot be used: {error}. Is the database's URL right?", code="database_unavailable"
        ) from error
    except (OSError, DBAPIError) as error:
        raise Unavailable("Upkeep cannot reach its database (Postgres).", code="database_unavailable") from error


async def _require_owner(connection: AsyncConnection) -> None:
    async with connection.begin():
        is_owner = await connection.scalar(_IS_OWNER)
    if is_owner is None:
        raise Unavailable(
            "The database has no schema yet, or an old one: run `wirthforge migrate`.", code="not_migrated"
        )
    if not is_owner:
        raise Unavailable(
            "Upkeep needs the login that owns the tables: set DATABASE_OWNER_URL (docs/isolation.md).", code="not_owner"
        )
