"""What is older than it is to be kept goes, each kind by itself; what is to be kept for ever stays."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from server.clock import uuid7
from server.db.session import Database
from server.upkeep.archiving import archive
from server.upkeep.expiring import BATCH, Keeps, expire
from server.upkeep.forgetting import forget_removed
from server.upkeep.jobs import Turn
from server.upkeep.shelf import Shelf
from tests.upkeep.chats import add_chat, add_person
from tests.upkeep.conftest import Kept, RunJob, StillClock, rows

FOR_EVER = Keeps(council_runs=0, audit=0, logins=0, conversations=0, member_answers=0)
AGED = {
    "login_sessions": "INSERT INTO login_sessions VALUES (uuid_send(:id), :who, :at, :at)",
    "setup_tokens": "INSERT INTO setup_tokens VALUES (:who, uuid_send(:id), :at)",
    "cloud_consents": (
        "INSERT INTO cloud_consents VALUES (uuid_send(:id), :who, :id, NULL, 'p', 'm', '', 0, :at, :at, NULL, NULL,"
        " NULL)"
    ),
    "audit_log": "INSERT INTO audit_log VALUES (:id, :at, NULL, 'a', 'b', 'c', NULL, NULL, NULL)",
    "council_runs": (
        "INSERT INTO council_runs VALUES (:id, :who, 'council', 'duo', 'open', NULL, 2, '', 'worth', '{}', '[]', NULL,"
        " NULL, NULL, NULL, NULL, 'completed', :at, 1, NULL)"
    ),
}


class Room:
    """Some people, with what gets old."""

    def __init__(
        self, database: Database, engine: AsyncEngine, clock: StillClock, run_job: RunJob, shelf: Shelf
    ) -> None:
        self.database = database
        self.engine = engine
        self.clock = clock
        self.run_job = run_job
        self.shelf = shelf

    async def add(self, table: str, at: datetime) -> UUID:
        """A row of that time."""
        row_id = uuid7(at)
        async with self.engine.begin() as connection:
            who = await add_person(self.database)
            await connection.execute(text(AGED[table]), {"id": row_id, "who": who, "at": at})
        return row_id

    async def count(self, table: str) -> object:
        """Its rows."""
        return (await rows(self.engine, f"SELECT count(*) FROM {table}"))[0][0]  # noqa: S608 (names of ours)

    async def expire(self, keeps: Keeps, *, is_dry: bool = False) -> Kept:
        """The job."""

        async def expiring(turn: Turn) -> None:
            await expire(turn, self.shelf, keeps)

        told = await self.run_job(expiring, is_dry=is_dry)
        assert [(result.outcome, result.note) for result in told.results] == [("done", "")]
        return told

    async def archive(self) -> None:
        """Those that write and clean files."""

        async def archiving(turn: Turn) -> None:
            await forget_removed(turn, self.shelf)
            await archive(turn, self.shelf, 90)

        assert [result.outcome for result in (await self.run_job(archiving)).results] == ["done"]


@pytest.fixture
async def room(
    database_url: str, engine: AsyncEngine, clock: StillClock, run_job: RunJob, tmp_path: Path
) -> AsyncIterator[Room]:
    """Empty."""
    database = Database(database_url, connections_max=2)
    yield Room(database, engine, clock, run_job, Shelf(tmp_path / "archive"))
    await database.close()


@pytest.mark.parametrize(
    ("table", "keeps"),
    [
        *((table, replace(FOR_EVER, logins=30)) for table in ("login_sessions", "setup_tokens", "cloud_consents")),
        ("audit_log", replace(FOR_EVER, audit=30)),
        ("council_runs", replace(FOR_EVER, council_runs=30)),
    ],
)
async def test_each_kind_goes_after_a_time_of_its_own(room: Room, table: str, keeps: Keeps) -> None:
    """Not a day before, never where it is kept for ever; and a dry run only says so."""
    now = room.clock.time
    for days in (32, 29):
        await room.add(table, now - timedelta(days=days))
    assert (await room.expire(FOR_EVER)).lines == []
    dry = await room.expire(keeps, is_dry=True)
    assert sum("would remove 1 " in line for line in dry.lines) == 1
    assert await room.count(table) == 2
    assert len((await room.expire(keeps)).lines) == 1
    assert await room.count(table) == 1
    assert (await room.expire(keeps)).lines == []


async def test_a_council_run_stays_as_long_as_its_requests(room: Room) -> None:
    """Reports tell its name; once its requests are sums, which hold it, it goes."""
    run = await room.add("council_runs", room.clock.time - timedelta(days=32))
    async with room.engine.begin() as connection:
        usage = (
            "INSERT INTO usage (request_id, user_id, surface, model, engine, input_tokens, output_tokens, queue_ms,"
            " total_ms, outcome, started_at, council_id) VALUES (:id, :id, 'chat', 'm', 'e', 1, 2, 3, 4, 'completed',"
            " now(), :run)"
        )
        await connection.execute(text(usage), {"id": uuid4(), "run": run})
    keeps = replace(FOR_EVER, council_runs=30)
    await room.expire(keeps)
    assert await room.count("council_runs") == 1
    async with room.engine.begin() as connection:
        await connection.execute(text("DELETE FROM usage"))
    await room.expire(keeps)
    assert await room.count("council_runs") == 0


async def test_conversations_that_rest_go_with_all_that_belongs_to_them(room: Room) -> None:
    """Where somebody wants it: out of the tables and out of the files; pinned ones and those in use stay."""
    ada, start = await add_person(room.database), room.clock.time
    old, pinned = [await add_chat(room.database, ada, start) for _ in range(2)]
    room.clock.time = start + timedelta(days=130)
    await room.archive()
    new = await add_chat(room.database, ada, room.clock.time)
    middle = await add_chat(room.database, ada, start + timedelta(days=20))
    async with room.engine.begin() as connection:
        await connection.execute(text("UPDATE conversations SET pinned_at = now() WHERE id = :id"), {"id": pinned})
    keeps = replace(FOR_EVER, conversations=100)
    assert (await room.expire(keeps, is_dry=True)).lines == ["would remove 2 conversations"]
    assert (await room.expire(keeps)).lines == ["removed 2 conversations"]
    await room.archive()
    left = {row[0] for row in await rows(room.engine, "SELECT id FROM conversations")}
    assert left == {pinned, new}
    for table in ("messages", "member_answers"):
        assert {row[0] for row in await rows(room.engine, f"SELECT conversation_id FROM {table}")} == {new}  # noqa: S608
    content = b"".join(file.read_bytes() for file in (room.shelf.path("x").parent).iterdir())
    assert (old.bytes in content, middle.bytes in content, pinned.bytes in content) == (False, False, True)
    assert BATCH > 2


async def test_answers_of_members_go_and_the_councils_answer_stays(room: Room) -> None:
    """Out of the tables, and whole months out of the files."""
    ada, start = await add_person(room.database), room.clock.time
    await add_chat(room.database, ada, start)
    room.clock.time = start + timedelta(days=130)
    await room.archive()
    await add_chat(room.database, ada, room.clock.time - timedelta(days=11))
    await add_chat(room.database, ada, room.clock.time)
    keeps = replace(FOR_EVER, member_answers=10)
    (file,) = [name for name in room.shelf.names("member_answers_") if name.endswith(".parquet")]
    dry = ["would remove 2 answers of members", f"would remove {file}"]
    assert (await room.expire(keeps, is_dry=True)).lines[:2] == dry
    assert (await room.expire(keeps)).lines[:2] == ["removed 2 answers of members", f"removed {file}"]
    assert room.shelf.names("member_answers_") == []
    assert len(room.shelf.names("messages_")) == 2
    assert (await room.count("member_answers"), await room.count("messages")) == (2, 10)
    assert await rows(room.engine, "SELECT table_name FROM archives") == [("messages",)]
    await room.archive()
