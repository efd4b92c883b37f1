"""Brings the schema to the newest revision. Safe to run twice, and from several replicas at once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from server.db.address import open_engine
from server.db.session import CONNECT_S_MAX
from server.errors import StartError

MIGRATIONS = Path(__file__).parents[2] / "migrations"


async def migrate(url: str) -> tuple[str | None, str]:
    """Apply what is missing.

    Returns:
        The revision before (None: an empty database) and after.

    Raises:
        StartError: Postgres cannot be reached, or holds a schema that this version does not know.
    """
    config, newest = _migrations()
    async with _connect(url) as connection:
        before = await connection.run_sync(_revision)
        if before != newest:
            _refuse_unknown(config, before)
            await connection.run_sync(lambda sync: _upgrade(config, sync))
        return before, newest


async def require_newest(url: str) -> str:
    """Check without changing anything; gives the revision. Raises StartError when the schema is not the newest."""
    config, newest = _migrations()
    async with _connect(url) as connection:
        found = await connection.run_sync(_revision)
    if found != newest:
        _refuse_unknown(config, found)
        held = "has no schema" if found is None else f"is at revision {found}"
        raise StartError(f"The database {held}, and revision {newest} is needed: run `wirthforge migrate`.")
    return newest


def require_known(revision: str) -> None:
    """Raise StartError for a revision of a backup that this version does not know."""
    config, _ = _migrations()
    if revision not in {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}:
        raise StartError(
            f"The backup is at revision {revision}, which this version does not know: it was made by a newer version. "
            "Install that."
        )


def _migrations() -> tuple[Config, str]:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    newest = ScriptDirectory.from_config(config).get_current_head()
    assert newest is not None
    return config, newest


@asynccontextmanager
async def _connect(url: str) -> AsyncIterator[AsyncConnection]:
    engine = open_engine(url, connect_args={"timeout": CONNECT_S_MAX})
    try:
        async with engine.begin() as connection:
            yield connection
    except (OSError, DBAPIError) as error:
        raise StartError(f"Postgres cannot be used: {_first_line(error)}. Is DATABASE_URL right?") from error
    finally:
        await engine.dispose()


class SchemaIsNewer(StartError):
    """The database was migrated by a newer version: waiting does not help."""


def _refuse_unknown(config: Config, revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaIsNewer(
            f"The database is at revision {revision}, which this version does not know: "
            "it was migrated by a newer version. Install that, or restore a backup."
        )


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(config: Config, connection: Connection) -> None:
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return (str(cause) or type(cause).__name__).splitlines()[0]
