"""Brings back what is archived of a conversation, when its person opens it.

The rows come back by the app's own connection, as their person, under the rules that hold for everything else: a file
that names other people's rows changes nothing for them. They lie in the default partition, and go again after a while
(archiving.py). Asking costs one short query where nothing is to be done, which is nearly always.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Select, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from server.clock import Clock
from server.db.models import ArchiveRow, Conversation, RestoredConversation
from server.db.session import Database
from server.telemetry import DISKS
from server.upkeep.parted import time_of
from server.upkeep.sheets import ARCHIVED, all_groups, among, as_row, portions, rows_of
from server.upkeep.shelf import Shelf

_TABLES = {archived.parted.name: archived.table for archived in ARCHIVED}

log = structlog.get_logger(__name__)


class Archive:
    """What is in files, for the people it belongs to.

    Args:
        shelf: the folder, which all replicas share.
    """

    def __init__(self, database: Database, shelf: Shelf, clock: Clock) -> None:
        self._database = database
        self._shelf = shelf
        self._clock = clock
        DISKS.watch("data", shelf.folder)

    async def restore(self, user_id: UUID, conversation_id: UUID) -> int:
        """Have all messages of a conversation in the tables; returns how many rows had to come back.

        Of a conversation that is not there, or is somebody else's, nothing comes. Safe to ask twice, also at once.

        Raises:
            Unavailable: Postgres is away; or a file is missing or was changed (`archive_missing`, `archive_changed`),
                and then nothing has come back.
        """
        async with self._database.transaction(of=user_id) as session:
            waiting = await _waiting(session, conversation_id)
        if not waiting:
            return 0
        found = {one.id: await asyncio.to_thread(self._read, one, user_id, conversation_id) for one in waiting}
        now, count = self._clock.now(), 0
        async with self._database.transaction(of=user_id) as session:
            # Held, so that it is not removed while its messages come back.
            if not await session.scalar(_conversation(conversation_id).with_for_update(read=True, key_share=True)):
                return 0
            for one in waiting:
                count += await _insert(session, one.table_name, found[one.id])
                done = {"conversation_id": conversation_id, "archive_id": one.id, "restored_at": now}
                await session.execute(insert(RestoredConversation).values(done).on_conflict_do_nothing())
        if count:
            log.info("conversation restored", rows=count, files=len(waiting))
        return count

    async def read(self, user_id: UUID, table: str | None = None) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """All that is archived of a person, as table and row; for their export. What came back is told as well.

        Args:
            table: only what is of this one.

        Raises:
            Unavailable: Postgres is away; or a file is missing or was changed.
        """
        async with self._database.transaction(of=user_id) as session:
            query = select(ArchiveRow).where(ArchiveRow.rows > 0).order_by(ArchiveRow.path)
            if table is not None:
                query = query.where(ArchiveRow.table_name == table)
            archives = (await session.scalars(query)).all()
        for one in archives:
            async with self._shelf.trusted(one.path, one.sha256) as file:
                remaining = all_groups(file)
                while (group := await asyncio.to_thread(next, remaining, None)) is not None:
                    own = group.filter(among(group, "user_id", {user_id.bytes}))
                    for row in await asyncio.to_thread(own.to_pylist):
                        yield one.table_name, as_row(row)

    def _read(self, one: ArchiveRow, user_id: UUID, conversation_id: UUID) -> list[dict[str, Any]]:
        with self._shelf.open(one.path, one.sha256) as file:
            return [row for row in rows_of(file, {conversation_id}) if row["user_id"] == user_id]


async def _waiting(session: AsyncSession, conversation_id: UUID) -> Sequence[ArchiveRow]:
    """Files that may hold something of it, and were not asked yet: those of the months since it began."""
    asked = select(RestoredConversation.archive_id).where(RestoredConversation.conversation_id == conversation_id)
    is_theirs = _conversation(conversation_id).exists()
    query = select(ArchiveRow).where(is_theirs, ArchiveRow.rows > 0, ArchiveRow.id.not_in(asked))
    if (began := time_of(conversation_id)) is not None:
        query = query.where(ArchiveRow.ends > began)
    return (await session.scalars(query.order_by(ArchiveRow.path))).all()


def _conversation(conversation_id: UUID) -> Select[UUID]:
    return select(Conversation.id).where(Conversation.id == conversation_id)


async def _insert(session: AsyncSession, table: str, rows: Sequence[dict[str, Any]]) -> int:
    """Those that are not there."""
    known, count = _TABLES[table], 0
    for part in portions(rows, known):
        added = await session.scalars(insert(known).on_conflict_do_nothing().returning(known.c.id), part)
        count += len(added.all())
    return count
