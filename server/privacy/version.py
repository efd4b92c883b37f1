"""One number that counts each change of what may leave this box: policies, providers, and quotas for their bounds.

A decision is made on rules of some version, and holds only as long as they do. So whoever changes a rule counts up in
the same transaction (`bump`), and whoever sends reads the number under a lock in the transaction that writes the ledger
(`hold`): where it is another than the one decided on, nothing is sent. Either the change comes first, and the sender
sees it, or the sending does, and the change waits for its commit.

Whoever caches rules reads the number before the rules: then a change in between makes the cache seem old, never new.
"""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from server.clock import Clock
from server.db.models import CloudVersion
from server.db.session import Database

# How long a replica goes without asking; what is sent is checked again in any case.
FRESH_MS = 2_000
# Nothing was ever changed: there is no provider and no policy.
NONE_YET = 0

_READ = select(CloudVersion.version).where(CloudVersion.id == 1)


async def bump(session: AsyncSession) -> int:
    """Count a change that this transaction makes. Gives the new version; the row is locked until the commit."""
    row = insert(CloudVersion).values(id=1, version=NONE_YET + 1)
    counted = row.on_conflict_do_update(index_elements=["id"], set_={"version": CloudVersion.version + 1})
    version: int | None = await session.scalar(counted.returning(CloudVersion.version))
    assert version is not None, "an upsert gives a row"
    return version


async def read(session: AsyncSession) -> int:
    """The version, which may change meanwhile; for caches, before they read the rules."""
    return await session.scalar(_READ) or NONE_YET


async def hold(session: AsyncSession) -> int:
    """The version, which cannot change before this transaction ends; for who sends."""
    return await session.scalar(_READ.with_for_update(read=True)) or NONE_YET


class Version:
    """The version as this replica knows it: read again when it is older than FRESH_MS."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._version = NONE_YET
        self._stale_ms: int | None = None

    async def known(self) -> int:
        """At most FRESH_MS old. Raises Unavailable when Postgres is away, also where an older one is known."""
        now_ms = self._clock.monotonic_ms()
        if self._stale_ms is None or now_ms >= self._stale_ms:
            row = await self._database.first(_READ)
            self._version = NONE_YET if row is None else row[0]
            self._stale_ms = now_ms + FRESH_MS
        return self._version

    def forget(self) -> None:
        """Ask again the next time: this replica has changed something, or was told at a send that it was changed."""
        self._stale_ms = None
