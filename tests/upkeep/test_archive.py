"""Old months go into files and come back, whole, for whom they belong to; and nothing half happens."""

import asyncio
import json
import resource
import signal
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from server.db.migrate import migrate
from server.db.session import Database
from server.errors import Unavailable
from server.upkeep.archiving import RESTORED_DAYS, archive
from server.upkeep.forgetting import Receipt, forget, forget_removed
from server.upkeep.jobs import Turn
from server.upkeep.partitions import make_ahead
from server.upkeep.restoring import Archive
from server.upkeep.returning import bring_all_back
from server.upkeep.shelf import Shelf
from tests.migrating import alembic
from tests.upkeep.chats import add_chat, add_person, read
from tests.upkeep.conftest import Kept, RunJob, StillClock, rows
from tests.upkeep.killed import STEPS

DAYS = 90


class Room:
    """A database with the app's own connections, its owner's jobs, and the folder of the archive."""

    def __init__(
        self, database: Database, engine: AsyncEngine, clock: StillClock, run_job: RunJob, folder: Path
    ) -> None:
        self.database = database
        self.clock = clock
        self.start = clock.time
        self.run_job = run_job
        self.folder = folder
        self.shelf = Shelf(folder)
        self.restoring = Archive(database, self.shelf, clock)
        self.engine = engine

    @property
    def names(self) -> list[str]:
        """Files of the archive."""
        return sorted(file.name for file in self.folder.iterdir()) if self.folder.exists() else []

    async def archive(self, days_later: int = 130, *, is_dry: bool = False) -> Kept:
        """The job, when this month has become old."""
        self.clock.time += timedelta(days=days_later)

        async def archiving(turn: Turn) -> None:
            await archive(turn, self.shelf, DAYS)

        return await self.run_job(archiving, is_dry=is_dry)

    async def forget(self, person: UUID) -> Receipt:
        """What a person's deletion says."""
        receipts: list[Receipt] = []

        async def forgetting(turn: Turn) -> None:
            receipts.append(await forget(turn, self.shelf, people={person}))

        told = await self.run_job(forgetting)
        assert [(result.outcome, result.note) for result in told.results] == [("done", "")]
        return receipts[0]

    async def count(self, table: str) -> object:
        """Its rows."""
        return (await rows(self.engine, f"SELECT count(*) FROM {table}"))[0][0]  # noqa: S608 (names of ours)

    async def first_month(self) -> str:
        """The oldest partition of messages."""
        query = "SELECT min(relname) FROM pg_class WHERE relname ~ '^messages_20.._..$' AND relispartition"
        return str((await rows(self.engine, query))[0][0])


@pytest.fixture
async def room(
    database_url: str, engine: AsyncEngine, clock: StillClock, run_job: RunJob, tmp_path: Path
) -> AsyncIterator[Room]:
    """Empty."""
    database = Database(database_url, connections_max=2)
    yield Room(database, engine, clock, run_job, tmp_path / "archive")
    await database.close()


def modes(folder: Path) -> set[int]:
    """What others may do with the files of a folder, and then with itself."""
    return {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} | {stat.S_IMODE(folder.stat().st_mode)}


def manifest_of(folder: Path, table: str) -> dict[str, Any]:
    """The only one of a table."""
    (file,) = folder.glob(f"{table}_*.json")
    manifest: dict[str, Any] = json.loads(file.read_text())
    return manifest


def harmed(folder: Path, harm: str) -> None:
    """Change one bit of the messages, or take them away."""
    (file,) = folder.glob("messages_*.parquet")
    if harm == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


async def test_conversations_go_and_come_back_as_they_were(room: Room) -> None:
    """Every column of every row; of the conversation that is opened, for its person, once."""
    ada, bob = await add_person(room.database), await add_person(room.database)
    chats = [
        await add_chat(room.database, ada, room.clock.now()),
        await add_chat(room.database, ada, room.clock.now(), 40),
    ]
    foreign = await add_chat(room.database, bob, room.clock.now())
    before, month = await read(room.database, ada), await room.first_month()
    told = await room.archive()
    assert [(result.outcome, result.note) for result in told.results] == [("done", "")]
    assert await room.first_month() != month
    assert await room.count("messages") == await room.count("member_answers") == 0
    assert modes(room.folder) == {0o600, 0o700}
    assert [name.rpartition(".")[2] for name in room.names] == ["json", "parquet"] * 2
    for table, kept in (("member_answers", 24), ("messages", 50)):
        manifest = manifest_of(room.folder, table)
        stored = await rows(
            room.engine, "SELECT rows, encode(sha256, 'hex') FROM archives WHERE table_name = :t", t=table
        )
        assert stored == [(kept, manifest["sha256"])]
        assert manifest["rows"] == kept

    assert await room.restoring.restore(bob, chats[0]) == 0
    assert await room.restoring.restore(ada, foreign) == 0
    assert await room.count("messages") == 0
    assert await room.restoring.restore(ada, chats[0]) == 5 + 2
    assert {row.conversation_id for row in (await read(room.database, ada))[0]} == {chats[0]}
    both = await asyncio.gather(*(room.restoring.restore(ada, chats[1]) for _ in range(2)))
    assert sum(both) == 40 + 20
    assert await read(room.database, ada) == before
    assert await room.restoring.restore(ada, chats[1]) == 0
    assert await read(room.database, bob) == ([], [])


async def test_an_export_reads_what_is_in_files(room: Room) -> None:
    """All rows of the person, of nobody else, without bringing anything back."""
    ada, bob = await add_person(room.database), await add_person(room.database)
    for who in (ada, bob):
        await add_chat(room.database, who, room.clock.now())
    before = await read(room.database, ada)
    await room.archive()
    found = {"messages": [], "member_answers": []}  # type: ignore[var-annotated]
    async for table, row in room.restoring.read(ada):
        found[table].append(row)
    assert found["messages"] == [dict(row._mapping) for row in before[0]]
    assert found["member_answers"] == [dict(row._mapping) for row in before[1]]


async def test_what_is_young_stays(room: Room) -> None:
    """Until the last day of the month is older than the setting says. A dry run only tells."""
    await add_chat(room.database, await add_person(room.database), room.clock.now())
    month = await room.first_month()
    told = await room.archive(90)
    assert told.lines == ["nothing that is older than 90 days"]
    told = await room.archive(40, is_dry=True)
    assert any(line.startswith(f"would write {month} into {month}.1.parquet") for line in told.lines)
    assert await room.first_month() == month
    assert room.names == []


@pytest.mark.parametrize("harm", ["changed", "missing"])
async def test_a_file_that_was_tampered_with_is_not_believed(room: Room, harm: str) -> None:
    """Nothing comes back from it, nothing is written anew from it, and a person's deletion says that it is there."""
    ada = await add_person(room.database)
    chat = await add_chat(room.database, ada, room.clock.now())
    await room.archive()
    harmed(room.folder, harm)
    with pytest.raises(Unavailable) as refused:
        await room.restoring.restore(ada, chat)
    assert refused.value.code == f"archive_{harm}"
    assert await read(room.database, ada) == ([], [])
    receipt = await room.forget(ada)
    assert [one.table for one in receipt.files] == ["member_answers"]
    assert len(receipt.problems) == 1
    assert await room.count("archives") == 1


@contextmanager
def small_disk(size_bytes: int) -> Iterator[None]:
    """The system refuses to let any file grow further, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


async def test_a_full_disk_leaves_everything_as_it_was(room: Room) -> None:
    """The job fails and says why; no file is left, no row is gone, and with room it is done."""
    ada = await add_person(room.database)
    await add_chat(room.database, ada, room.clock.now(), 50)
    before = await read(room.database, ada)
    with small_disk(2_000):  # lines of the log are shorter, files are longer
        told = await room.archive()
    assert [result.outcome for result in told.results] == ["failed"]
    assert "too large" in told.results[0].note
    assert room.names == []
    assert await read(room.database, ada) == before
    assert [result.outcome for result in (await room.archive(0)).results] == ["done"]
    assert await room.count("messages") == 0


async def test_a_month_that_changes_meanwhile_stays(room: Room) -> None:
    """Somebody removes an old conversation while it is written: the file is not believed, and is written again."""
    ada = await add_person(room.database)
    chat = await add_chat(room.database, ada, room.clock.now())
    kept = await add_chat(room.database, ada, room.clock.now())
    room.clock.time += timedelta(days=130)
    lines: list[str] = []
    async with room.engine.connect() as busy, asyncio.TaskGroup() as group:
        await busy.execute(text("DELETE FROM messages WHERE conversation_id = :chat"), {"chat": chat})

        def tell(line: str) -> None:
            lines.append(line)
            if "in use" in line:
                group.create_task(busy.commit())

        async def archiving(turn: Turn) -> None:
            await archive(Turn(turn.connection, turn.clock, tell), room.shelf, DAYS)

        told = await room.run_job(archiving)
    assert "messages is in use; trying again" in lines
    assert "was changed while it was written" in told.results[0].note
    assert await room.count("messages") == 5
    assert (await room.run_job(archiving)).results[0].outcome == "done"
    assert await room.restoring.restore(ada, kept) == 5 + 2
    assert [row for row in (await read(room.database, ada))[0] if row.conversation_id == chat] == []


async def test_a_person_who_goes_is_in_no_file(room: Room) -> None:
    """The receipt says what was removed where; others keep theirs; and whoever was alone in a file takes it along."""
    ada, bob = await add_person(room.database), await add_person(room.database)
    for who in (ada, bob):
        await add_chat(room.database, who, room.clock.now())
    chat = await add_chat(room.database, bob, room.clock.now())
    before = [row for row in (await read(room.database, bob))[0] if row.conversation_id == chat]
    await room.archive()
    receipt = await room.forget(ada)
    assert {one.table: (one.rows_removed, one.rows_left) for one in receipt.files} == {
        "messages": (5, 10),
        "member_answers": (2, 4),
    }
    assert receipt.rows_removed == 7
    stored = await rows(room.engine, "SELECT table_name, encode(sha256, 'hex') FROM archives ORDER BY path")
    assert [(one.table, one.sha256_after) for one in receipt.files] == stored
    assert [name.split(".")[1] for name in room.names] == ["2"] * 4
    assert [row async for row in room.restoring.read(ada)] == []
    assert await room.restoring.restore(bob, chat) == 7
    assert [row for row in (await read(room.database, bob))[0] if row.conversation_id == chat] == before
    assert (await room.forget(ada)).files == []
    receipt = await room.forget(bob)
    assert {one.sha256_after for one in receipt.files} == {None}
    assert room.names == []
    assert await room.count("archives") == 0


async def test_a_removed_conversation_leaves_the_files_too(room: Room) -> None:
    """With the next run of the job, which then has nothing more to do."""
    ada = await add_person(room.database)
    chat, kept = [await add_chat(room.database, ada, room.clock.now()) for _ in range(2)]
    await room.archive()
    async with room.database.transaction(of=ada) as session:
        await session.execute(text("DELETE FROM conversations WHERE id = :chat"), {"chat": chat})
    forgetting = partial(forget_removed, shelf=room.shelf)
    forgetting.__name__ = "forgetting"  # type: ignore[attr-defined]
    assert (await room.run_job(forgetting)).lines[-1] == "removed 7 rows of 1 conversations"
    left = {row["conversation_id"] async for _, row in room.restoring.read(ada)}
    assert left == {kept}
    assert (await room.run_job(forgetting)).lines == ["the archive holds nothing that was removed"]


async def test_what_came_back_goes_again(room: Room) -> None:
    """After a month of rest; and comes back once more when it is opened."""
    ada = await add_person(room.database)
    chat = await add_chat(room.database, ada, room.clock.now())
    before = await read(room.database, ada)
    await room.archive()
    await room.restoring.restore(ada, chat)
    await room.archive(RESTORED_DAYS - 1)
    assert await room.count("messages") == 5
    told = await room.archive(2)
    assert any("5 rows that had come back went again" in line for line in told.lines)
    assert await room.count("messages") == await room.count("member_answers") == 0
    assert await room.restoring.restore(ada, chat) == 7
    assert await read(room.database, ada) == before
    await room.run_job(make_ahead)  # which makes no month of before for what has come back
    assert await room.count("messages_default") == 5


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_any_step_it_goes_on(room: Room, database_url: str, step: str) -> None:
    """No row is lost, none is believed to be in a file that nobody checked, and the next run finishes the work."""
    ada = await add_person(room.database)
    chat = await add_chat(room.database, ada, room.clock.now())
    before = await read(room.database, ada)
    command = [sys.executable, "-m", "tests.upkeep.killed", database_url, str(room.folder), "130", step]
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == -signal.SIGKILL
    assert room.names != []
    assert await read(room.database, ada) == before
    assert await room.count("archives") == 0
    while (told := await room.archive(0 if room.clock.time > room.start else 130)).results == []:
        pass  # Postgres has not seen yet that the other one is dead
    assert [(result.outcome, result.note) for result in told.results] == [("done", "")]
    assert [name.rpartition(".")[2] for name in room.names] == ["json", "parquet"] * 2
    assert await room.restoring.restore(ada, chat) == 7
    assert await read(room.database, ada) == before


async def test_a_month_that_was_archived_too_early_is_archived_once_more(room: Room) -> None:
    """A clock was ahead; now it is right, and the month has rows in Postgres and in a file."""
    ada = await add_person(room.database)
    first = await add_chat(room.database, ada, room.clock.now())
    opened = await add_chat(room.database, ada, room.clock.now())
    await room.archive()
    room.clock.time = room.start
    await room.restoring.restore(ada, opened)
    await room.run_job(make_ahead)
    last = await add_chat(room.database, ada, room.clock.now())
    assert await room.count("messages_default") == 0
    told = await room.archive()
    assert [(result.outcome, result.note) for result in told.results] == [("done", "")]
    assert await room.count("messages") == 0
    assert [name.rpartition(".")[2] for name in room.names] == ["json", "parquet"] * 2
    for chat in (first, opened, last):
        assert await room.restoring.restore(ada, chat) == 7


async def test_small_groups_of_large_files_hold_everything(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation is found in all groups that hold some of it."""
    monkeypatch.setattr("server.upkeep.sheets.GROUP_ROWS_MAX", 3)
    monkeypatch.setattr("server.upkeep.sheets.STATEMENT_ROWS_MAX", 2)
    people = [await add_person(room.database) for _ in range(3)]
    chats = {await add_chat(room.database, who, room.clock.now(), count): who for who in people for count in (1, 2, 8)}
    before = {who: await read(room.database, who) for who in people}
    await room.archive()
    assert [await room.restoring.restore(who, chat) for chat, who in chats.items()] == [1, 3, 12] * 3
    assert {who: await read(room.database, who) for who in people} == before


async def test_an_archive_that_came_back_lets_the_schema_step_back(room: Room, database_url: str) -> None:
    """Until then the step is refused, and nothing has changed."""
    ada = await add_person(room.database)
    chat = await add_chat(room.database, ada, room.clock.now())
    before = await read(room.database, ada)
    await room.archive()
    with pytest.raises(RuntimeError, match="unarchive"):
        await alembic(room.engine, lambda config: command.downgrade(config, "0011"))
    await room.restoring.restore(ada, chat)
    returning = partial(bring_all_back, shelf=room.shelf)
    returning.__name__ = "returning"  # type: ignore[attr-defined]
    assert (await room.run_job(returning)).results[0].outcome == "done"
    assert await read(room.database, ada) == before
    assert room.names == []
    await alembic(room.engine, lambda config: command.downgrade(config, "0011"))
    assert await room.count("messages") == len(before[0])
    assert (await room.run_job(make_ahead)).results[0].outcome == "done"
    await migrate(database_url)
    assert await read(room.database, ada) == before
    assert await room.restoring.restore(ada, chat) == 0
