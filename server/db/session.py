"""Connections to Postgres, and the one way to use them: a short transaction.

No transaction spans a wait for somebody else (an engine, a client, a password hash), so a handful of connections is
enough for a thousand streams.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVarTuple

from sqlalchemy import Row, Select, text
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from server.errors import Unavailable

Columns = TypeVarTuple("Columns")

CONNECT_S_MAX = 5
COMMAND_S_MAX = 15
# SQLSTATE classes: connection exceptions, no such database, too many connections, shutting down or starting up.
AWAY_STATES = ("08", "3D", "53", "57")
NO_SUCH_TABLE = "42P01"


class Database:
    """A pool of connections.

    Args:
        url: `postgresql://…`; the driver is added.
        connections_max: how many this replica opens at the most.
    """

    def __init__(self, url: str, *, connections_max: int = 10) -> None:
        self._engine = create_async_engine(
            async_url(url),
            pool_size=connections_max,
            max_overflow=0,
            pool_timeout=CONNECT_S_MAX,
            hide_parameters=True,  # errors are logged; what people wrote is not
            connect_args={"timeout": CONNECT_S_MAX, "command_timeout": COMMAND_S_MAX},
        )
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self._reads = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session that commits at the end and rolls back on any error.

        Raises:
            Unavailable: Postgres is away.
        """
        with _told():
            async with self._sessions.begin() as session:
                yield session

    async def first(self, query: Select[*Columns], **values: object) -> Row[*Columns] | None:
        """The first row of one query, outside of a transaction: one round trip instead of three, for hot paths.

        Args:
            query: best built once, since building takes longer than asking.
            values: for its bound parameters.

        Raises:
            Unavailable: Postgres is away.
        """
        with _told():
            async with self._reads.connect() as connection:
                return (await connection.execute(query, values)).first()

    async def ping(self) -> None:
        """Raise Unavailable when Postgres is away."""
        async with self.transaction() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


@contextmanager
def _told() -> Iterator[None]:
    """Turn the many ways in which Postgres can be away into one."""
    try:
        yield
    except (OSError, PoolTimeoutError, InterfaceError) as error:
        raise _away() from error
    except DBAPIError as error:
        # Closed under our hands; or not opened, with a state like "starting up" that tells a part of Postgres' life.
        if error.connection_invalidated or (_state(error) or "")[:2] in AWAY_STATES:
            raise _away() from error
        if _state(error) == NO_SUCH_TABLE:
            raise Unavailable(
                "The database has no schema yet: run `wirthforge migrate`.", code="not_migrated"
            ) from error
        raise


def _state(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def async_url(url: str) -> str:
    """The URL with our driver, whatever scheme the administrator wrote."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            url = "postgresql+asyncpg://" + url.removeprefix(scheme)
    # asyncpg's word for what libpq, and so everybody's URL, calls sslmode.
    return url.replace("sslmode=", "ssl=")


def _away() -> Unavailable:
    return Unavailable(
        "The server cannot reach its database (Postgres). Try again in a few seconds.",
        code="database_unavailable",
        retry_after_s=5,
    )
