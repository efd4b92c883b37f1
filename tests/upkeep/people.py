"""People with something in every table that can hold something of a person."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from server.clock import uuid7
from server.db.session import Database
from tests.db.test_isolation import INSERTS
from tests.upkeep.chats import add_chat, add_person

# What isolation's own rows leave out: written by other logins, or about a person by somebody else.
MORE = {
    "quotas": "INSERT INTO quotas VALUES (:id, 'user', NULL, :who, '{}', now(), NULL)",
    "audit_log": (
        "INSERT INTO audit_log SELECT :id, now(), :admin, 'root', 'quota.set', 'user ' || name, id, NULL, NULL FROM"
        " users WHERE id = :who"
    ),
    "egress": (
        "INSERT INTO egress (seq, at, kind, request_id, user_id, provider, model, policy_version, detectors, findings,"
        " form, body_bytes, sha256, reserved_micros, previous_hash, hash) VALUES ((SELECT coalesce(max(seq), 0) + 1"
        " FROM egress), now(), 'send', :id, :who, 'p', 'm', 1, '{}', '{}', 'as written', 3, '', 0, '', '')"
    ),
    "usage_days": (
        "INSERT INTO usage_days VALUES (:id, '2026-01-01', :who, :admin, 'm', 'e', 'local', NULL, 'completed', 2, 10,"
        " 20, 30, 40, 50, 60, 70, 0, 0)"
    ),
}
STATEMENTS = INSERTS | MORE


async def add_somebody(database: Database, engine: AsyncEngine, at: datetime) -> UUID:
    """A person with an old conversation, a new one, and a row in each table; the name is the id."""
    who = await add_person(database)
    await add_chat(database, who, at)
    async with engine.begin() as connection:
        for statement in STATEMENTS.values():
            values = {"id": uuid7(at + timedelta(days=130)), "who": who, "admin": uuid4()}
            await connection.execute(text(statement), values)
    return who
