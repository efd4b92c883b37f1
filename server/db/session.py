"""Connections to Postgres, and the one way to use them: a short transaction that says whose rows it is about.

No transaction spans a wait for somebody else (an engine, a client, a password hash), so a handful of connections is
enough for a thousand streams.

Connections work as the role `wirthforge_app`, which owns nothing, and which row-level security binds (migration 0009).
Of the tables that belong to people a transaction sees and changes the rows of the person that it names, of no one else;
a forgotten WHERE, or an id of somebody else, finds nothing. What a server must know of all (keys, login sessions,
usage) is open to a transaction that says `everybody`; what people wrote never is. Both hold for one transaction: a
connection goes back to the pool without them, whatever has happened.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVarTuple
from uuid import UUID

from sqlalchemy import Row, Select, text
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import QueuePool

from server.db.address import open_engine, with_driver
from server.errors import Unavailable
from server.tls import Untrusted, is_logging

Columns = TypeVarTuple("Columns")

CONNECT_S_MAX = 5
COMMAND_S_MAX = 15
# SQLSTATE classes: connection exceptions, no such database, too many connections, shutting down or starting up.
AWAY_STATES = ("08", "3D", "53", "57")
# A role that is not there: asked for on a connection, or to log in with.
NO_SUCH_TABLE, NO_SUCH_ROLES, NOT_ALLOWED = "42P01", ("22023", "28000"), "42501"
APP_ROLE = "wirthforge_app"
# For what is read outside of transactions; see `first`.
READERS_MAX = 2
_SCOPE = text(
    "SELECT set_config('wirthforge.user_id', :user_id, true), set_config('wirthforge.everybody', :everybody, true)"
)


class Database:
    """A pool of connections.

    Args:
        url: `postgresql://…`; the driver is added.
        connections_max: how many this replica opens at the most.
    """

    def __init__(self, url: str, *, connections_max: int = 10) -> None:
        self._engine = _connections(url, connections_max)
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self._readers = _connections(url, READERS_MAX, **{"wirthforge.everybody": "on"})
        self._reads = self._readers.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def transaction(self, *, of: UUID | None = None, everybody: bool = False) -> AsyncIterator[AsyncSession]:
        """A session that commits at the end and rolls back on any error.

        Args:
            of: whose rows it may see and change, in the tables that belong to people.
            everybody: the rows of all people, but for what they wrote.

        Raises:
            Unavailable: Postgres is away.
        """
        with _told():
            async with self._sessions.begin() as session:
                if of is not None or everybody:
                    scope = {"user_id": str(of or ""), "everybody": "on" if everybody else ""}
                    await session.execute(_SCOPE, scope)
                yield session

    async def first(self, query: Select[*Columns], **values: object) -> Row[*Columns] | None:
        """The first row of one query about everybody, outside of a transaction: one round trip, for hot paths.

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

    @property
    def connections_used(self) -> int:
        """How many are at work now, in both pools."""
        pools = (engine.pool for engine in (self._engine, self._readers))
        return sum(pool.checkedout() for pool in pools if isinstance(pool, QueuePool))

    async def close(self) -> None:
        """Close all connections."""
        await self._readers.dispose()
        await self._engine.dispose()


def _connections(url: str, count_max: int, **settings: str) -> AsyncEngine:
    return open_engine(
        url,
        pool_size=count_max,
        max_overflow=0,
        pool_timeout=CONNECT_S_MAX,
        hide_parameters=True,  # errors are logged; what people wrote is not
        connect_args={
            "timeout": CONNECT_S_MAX,
            "command_timeout": COMMAND_S_MAX,
            "server_settings": {"role": APP_ROLE, **settings},
        },
    )


@contextmanager
def _told() -> Iterator[None]:
    """Turn the many ways in which Postgres can be away into one."""
    try:
        yield
    except Untrusted as error:
        if not is_logging():
            # Whoever typed a command. In a server's log it is already, and its callers need not know.
            raise Unavailable(f"Postgres cannot be used: {error}. Is DATABASE_URL right?") from error
        raise _away() from error
    except (OSError, PoolTimeoutError, InterfaceError) as error:
        raise _away() from error
    except DBAPIError as error:
        # Closed under our hands; or not opened, with a state like "starting up" that tells a part of Postgres' life.
        if error.connection_invalidated or (_state(error) or "")[:2] in AWAY_STATES:
            raise _away() from error
        if _state(error) == NO_SUCH_TABLE or (_state(error) in NO_SUCH_ROLES and APP_ROLE in str(error.orig)):
            raise Unavailable(
                "The database has no schema yet, or an old one: run `wirthforge migrate`.", code="not_migrated"
            ) from error
        if _state(error) == NOT_ALLOWED and "set role" in str(error.orig):
            raise Unavailable(
                f"The database's user may not act as {APP_ROLE}: let its owner GRANT {APP_ROLE} to it.",
                code="role_not_granted",
            ) from error
        raise


def _state(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def async_url(url: str) -> str:
    """The URL for those who open it themselves; words about TLS stay in it (see `open_engine`)."""
    # asyncpg's word for what libpq, and so everybody's URL, calls sslmode.
    return with_driver(url).replace("sslmode=", "ssl=")


def _away() -> Unavailable:
    return Unavailable(
        "The server cannot reach its database (Postgres). Try again in a few seconds.",
        code="database_unavailable",
        retry_after_s=5,
    )
