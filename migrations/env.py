"""Runs the migrations, online only, one migrator at a time.

`server.db.migrate` passes a connection; the `alembic` command itself uses DATABASE_URL.
"""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text

from server.db.address import open_engine
from server.db.models import Base

# Any number; all migrators of this project agree on it.
ADVISORY_LOCK = 7_010_010


# Partitions come and go by themselves (server/upkeep).
PARTITIONS = text("SELECT inhrelid::regclass::text FROM pg_inherits")


def migrate(connection: Connection) -> None:
    """Apply migrations in one transaction: a failure leaves the database as it was. Migrators take turns."""
    partitions = set(connection.scalars(PARTITIONS))
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        include_name=lambda name, kind, _: kind != "table" or name not in partitions,
    )
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
        context.run_migrations()


async def connect_and_migrate() -> None:
    """For the `alembic` command."""
    engine = open_engine(os.environ["DATABASE_URL"], connect_args={})
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


if (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    asyncio.run(connect_and_migrate())
