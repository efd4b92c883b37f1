"""What tests of the egress ledger share: requests that leave, and tampering as only the tables' owner can do it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from server.db.session import Database
from server.privacy.egress import End, Entry, Send, append_send
from server.privacy.egress_verdict import Noted, Verdict, verify
from server.privacy.ends import end
from server.privacy.spend import month_of, reserve
from tests.conftest import execute

NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ANN = UUID("00000000-0000-7000-8000-00000000000a")
BEN = UUID("00000000-0000-7000-8000-00000000000b")


def a_send(of: UUID = ANN, **fields: Any) -> Send:
    """A request that is about to leave."""
    known: dict[str, Any] = {
        "request_id": uuid4(),
        "user_id": of,
        "conversation_id": uuid4(),
        "provider": "elsewhere",
        "model": "big",
        "policy_version": 3,
        "detectors": {"secrets": "1.5.0", "structured": "2.2.366"},
        "findings": {"PERSON": 2, "EMAIL": 1},
        "form": "pseudonymised",
        "consent_id": b"\x01" * 32,
        "body_bytes": 512,
        "sha256": b"\x02" * 32,
        "reserved_micros": 100,
    }
    return Send(**{**known, **fields})


def an_end(request_id: UUID, **fields: Any) -> End:
    """Its end, with 60 of the 100 that were reserved."""
    known: dict[str, Any] = {
        "request_id": request_id,
        "outcome": "completed",
        "answer_bytes": 2048,
        "input_tokens": 100,
        "output_tokens": 50,
        "spent_micros": 60,
    }
    return End(**{**known, **fields})


async def leave(database: Database, send: Send, at: datetime = NOW, limit_micros: int | None = None) -> Entry:
    """Reserve and write, as sending does."""
    async with database.transaction(of=send.user_id) as session:
        await reserve(session, send.user_id, month_of(at), send.reserved_micros, limit_micros)
        return await append_send(session, send, at)


async def come_back(database: Database, entry: Entry, at: datetime = NOW, **fields: Any) -> Entry | None:
    """Write the end, and settle."""
    async with database.transaction(of=entry.user_id) as session:
        return await end(session, an_end(entry.request_id, **fields), at)


async def some(database: Database, count: int = 3) -> list[Entry]:
    """So many requests that left and ended, a minute apart: twice as many entries."""
    entries = []
    for each in range(count):
        left = await leave(database, a_send(), NOW + each * MINUTE)
        ended = await come_back(database, left, NOW + each * MINUTE)
        assert ended is not None
        entries += [left, ended]
    return entries


async def people(database: Database) -> None:
    """Ann and Ben."""
    async with database.transaction(everybody=True) as session:
        for user_id, name in ((ANN, "ann"), (BEN, "ben")):
            await session.execute(_PERSON, {"id": user_id, "name": name, "at": NOW})


async def verdict(database: Database, *noted: Noted, now: datetime = NOW + 10 * MINUTE) -> Verdict:
    """What the doctor finds."""
    async with database.transaction(everybody=True) as session:
        return await verify(session, now, noted)


async def tamper(url: str, *statements: str) -> None:
    """As the tables' owner, with the trigger off."""
    await execute(
        url,
        "ALTER TABLE egress DISABLE TRIGGER append_only",
        *statements,
        "ALTER TABLE egress ENABLE TRIGGER append_only",
    )


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """A database with Ann and Ben in it."""
    database = Database(url, connections_max=10)
    await people(database)
    yield database
    await database.close()


_PERSON = text("""
    INSERT INTO users (id, name, role, created_at) VALUES (:id, :name, 'member', :at)
""")
