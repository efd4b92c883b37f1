"""Everything of a person in one file: complete, without secrets, and written without holding it in memory."""

import io
import json
import os
import tracemalloc
import zipfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncEngine

from server.clock import uuid7
from server.db.models import Message
from server.db.session import Database
from server.errors import TooMany
from server.upkeep.archiving import archive
from server.upkeep.jobs import Turn
from server.upkeep.restoring import Archive
from server.upkeep.shelf import Shelf
from server.upkeep.taking import PAGE_BYTES_MAX, SECRETS, AccountExport, tables_of_people, written
from tests.upkeep.chats import _message, add_chat, read
from tests.upkeep.conftest import RunJob, StillClock, rows
from tests.upkeep.people import add_somebody

OWNED = (
    "SELECT table_name FROM information_schema.columns JOIN pg_class ON oid = to_regclass(table_name)"
    " WHERE table_schema = 'public' AND column_name = 'user_id' AND NOT relispartition"
)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The test's database."""
    opened = Database(database_url, connections_max=2)
    yield opened
    await opened.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """The archive's folder."""
    return Shelf(tmp_path / "archive")


@pytest.fixture
def export(database: Database, shelf: Shelf, clock: StillClock) -> AccountExport:
    """What writes the files."""
    return AccountExport(database, Archive(database, shelf, clock), clock)


async def taken(export: AccountExport, person: UUID) -> dict[str, Any]:
    """What is in somebody's file."""
    content = b"".join([part async for part in written(export.start(person))])
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert file.testzip() is None
        return {name.removesuffix(".json"): json.loads(file.read(name)) for name in file.namelist()}


async def archive_all(shelf: Shelf, clock: StillClock, run_job: RunJob) -> None:
    """Have this month in files."""
    clock.time += timedelta(days=130)

    async def archiving(turn: Turn) -> None:
        await archive(turn, shelf, 90)

    assert [result.outcome for result in (await run_job(archiving)).results] == ["done"]


async def test_every_table_that_has_people_is_in_it(
    database: Database, engine: AsyncEngine, export: AccountExport, clock: StillClock
) -> None:
    """Whatever table has a user_id is there with the rows of its person, and nobody else's."""
    ada, bob = [await add_somebody(database, engine, clock.time) for _ in range(2)]
    found = await taken(export, ada)
    owned = {str(name) for (name,) in await rows(engine, OWNED)}
    assert owned == set(tables_of_people()) - {"users", "audit_log"}
    assert set(found) == {*owned, "users", "audit_log", "about"}
    for table in owned:
        assert found[table], table
        assert {row["user_id"] for row in found[table]} == {str(ada)}, table
    assert [row["name"] for row in found["users"]] == [str(ada)]
    assert [row["subject_id"] for row in found["audit_log"]] == [str(ada)]
    assert found["about"]["rows"] == {name: len(value) for name, value in found.items() if name != "about"}
    assert found["about"]["problems"] == []
    assert str(bob) not in json.dumps(found)


async def test_nothing_that_lets_anybody_in_is_in_it(
    database: Database, engine: AsyncEngine, export: AccountExport, clock: StillClock
) -> None:
    """Hashes of passwords, keys, cookies and links stay where they are; what else is made of bytes is no secret."""
    ada = await add_somebody(database, engine, clock.time)
    found = await taken(export, ada)
    bytes_ = "SELECT table_name, column_name FROM information_schema.columns WHERE data_type = 'bytea'"
    kept = {(str(table), str(name)) for table, name in await rows(engine, bytes_)} & {
        (table, name) for table in found for row in found[table] if table != "about" for name in row
    }
    assert kept == {
        *(("egress", name) for name in ("sha256", "hash", "previous_hash", "consent_id")),
        ("cloud_consents", "body_sha256"),
    }
    for table, names in SECRETS.items():
        assert found[table]
        assert not {name for row in found[table] for name in row} & set(names)


async def test_archived_months_are_in_it_once(
    database: Database, export: AccountExport, shelf: Shelf, clock: StillClock, run_job: RunJob, engine: AsyncEngine
) -> None:
    """All columns as they were, from tables and from files; what came back from files is not there twice."""
    ada, bob = [await add_somebody(database, engine, clock.time) for _ in range(2)]
    chat = await add_chat(database, ada, clock.time, 7)
    messages, members = await read(database, ada)
    before = await taken(export, ada)
    await archive_all(shelf, clock, run_job)
    assert (await read(database, ada))[0] != messages
    assert await Archive(database, shelf, clock).restore(ada, chat) == 7 + 3
    after = await taken(export, ada)
    for table, count in (("messages", len(messages)), ("member_answers", len(members))):
        assert len(after[table]) == count
        assert sorted(after[table], key=by_id) == sorted(before[table], key=by_id)
    assert str(bob) not in json.dumps(after)


def by_id(row: dict[str, Any]) -> str:
    """Its place."""
    return str(row["id"])


async def test_a_damaged_file_is_told_and_the_rest_is_there(
    database: Database, export: AccountExport, shelf: Shelf, clock: StillClock, run_job: RunJob, engine: AsyncEngine
) -> None:
    """Somebody who leaves gets what there is, and reads what is missing."""
    ada = await add_somebody(database, engine, clock.time)
    await archive_all(shelf, clock, run_job)
    (name,) = [name for name in shelf.names("messages_") if name.endswith(".parquet")]
    shelf.remove(name)
    found = await taken(export, ada)
    assert found["about"]["problems"] == [f"The archive's file {name} cannot be read: No such file or directory."]
    assert len(found["member_answers"]) == 3


async def test_memory_stays_flat(database: Database, export: AccountExport, clock: StillClock) -> None:
    """Of forty-five megabytes of text, no more than a few pages are held at a time."""
    who = uuid4()
    async with database.transaction() as session:
        await session.execute(text("INSERT INTO users VALUES (:id, 'ada', 'member', NULL, now(), NULL)"), {"id": who})
    chat = uuid7(clock.time)
    for number in range(45):
        row = _message(who, chat, clock.time + timedelta(seconds=number), 0)
        content = os.urandom(1 << 19).hex()
        async with database.transaction(of=who) as session:
            await session.execute(insert(Message), [row | {"content": content}])
    tracemalloc.start()
    size = 0
    async for part in written(export.start(who)):
        size += len(part)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 10_000_000
    # A page of rows, as text and as JSON, as the driver has them, and what zlib holds.
    assert peak < 5 * PAGE_BYTES_MAX


async def test_one_at_a_time(export: AccountExport, database: Database, engine: AsyncEngine, clock: StillClock) -> None:
    """Of a person; and when it has ended, or was left, another may begin."""
    ada = await add_somebody(database, engine, clock.time)
    for _ in range(2):
        parts = export.start(ada)
        assert await anext(parts)
        with pytest.raises(TooMany):
            export.start(ada)
        await parts.aclose()
    assert (await taken(export, ada))["users"]
