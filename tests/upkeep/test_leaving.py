"""People leave, with everything that is theirs, whenever they are interrupted; and a receipt tells of it."""

import asyncio
import hashlib
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from quotas.ledger import Ledger
from server.clock import uuid7
from server.db.models import Base
from server.db.models.retention import NOBODY
from server.db.session import Database
from server.errors import Conflict, NotFound
from server.upkeep.archiving import archive
from server.upkeep.departing import LATE_DAYS, REMOVED, depart
from server.upkeep.jobs import Turn
from server.upkeep.leaving import Departures, Receipt
from server.upkeep.owner import Owner
from server.upkeep.restoring import Archive
from server.upkeep.shelf import Shelf
from tests.upkeep.chats import add_chat, read
from tests.upkeep.conftest import Kept, RunJob, StillClock, rows
from tests.upkeep.killed import LEAVING
from tests.upkeep.people import STATEMENTS, add_somebody

PEOPLES = sorted(name for name, table in Base.metadata.tables.items() if "user_id" in table.c)
STAYS = {"egress"}


class Room:
    """Ada and Bob, each with something everywhere, in tables and in files."""

    def __init__(
        self, database: Database, engine: AsyncEngine, clock: StillClock, run_job: RunJob, departures: Departures
    ) -> None:
        self.database = database
        self.engine = engine
        self.clock = clock
        self.run_job = run_job
        self.departures = departures
        self.announced = 0

    ada: UUID
    bob: UUID
    shelf: Shelf
    folder: Path

    async def of(self, person: UUID) -> dict[str, int]:
        """How many rows of each table are somebody's; and in files."""
        query = "SELECT count(*) FROM {} WHERE user_id = :who"
        count = {table: int(str((await rows(self.engine, query.format(table), who=person))[0][0])) for table in PEOPLES}
        archived = [row async for _, row in Archive(self.database, self.shelf, self.clock).read(person)]
        return {name: number for name, number in (count | {"files": len(archived)}).items() if number}

    async def job(self) -> Kept:
        """The daily one."""

        async def departures(turn: Turn) -> None:
            await depart(turn, self.shelf)

        return await self.run_job(departures)


@pytest.fixture
async def room(
    database_url: str, engine: AsyncEngine, clock: StillClock, run_job: RunJob, ledger: Ledger, tmp_path: Path
) -> AsyncIterator[Room]:
    """With two old months in files."""
    database, folder = Database(database_url, connections_max=2), tmp_path / "archive"

    async def announce() -> None:
        made.announced += 1

    departures = Departures(Owner(database_url), Shelf(folder), database, ledger, clock, announce)
    made = Room(database, engine, clock, run_job, departures)
    made.shelf, made.folder = Shelf(folder), folder
    start = clock.time
    made.ada, made.bob = [await add_somebody(database, engine, start) for _ in range(2)]
    clock.time += timedelta(days=130)

    async def archiving(turn: Turn) -> None:
        await archive(turn, made.shelf, 90)

    assert [result.outcome for result in (await run_job(archiving)).results] == ["done"]
    await add_chat(database, made.ada, clock.time)
    yield made
    await database.close()


def told(receipt: Receipt) -> dict[str, Any]:
    """What a receipt says, without times and ids."""
    return {
        "removed": receipt.done.tables,
        "changed": receipt.done.changed,
        "files": [(one.table, one.rows_removed, one.rows_left) for one in receipt.done.files],
        "kept": {one.what: one.rows for one in receipt.done.kept},
        "problems": receipt.done.problems,
    }


EXPECTED = {
    "removed": {
        "api_keys": 1, "cloud_consents": 1, "cloud_policies": 1, "cloud_spend": 1, "conversations": 3,
        "council_runs": 1, "login_sessions": 1, "member_answers": 3, "messages": 6, "quotas": 1, "setup_tokens": 1,
        "users": 1,
    },
    "changed": {"audit_log": 1, "usage": 1, "usage_days": 1},
    "files": [("member_answers", 2, 2), ("messages", 5, 5)],
    "kept": {"audit_log": 1, "usage": 1, "usage_days": 1, "egress": 1, "budgets in Redis": None, "backups": None},
    "problems": [],
}  # fmt: skip


async def test_the_room_holds_something_of_everybody_everywhere(room: Room) -> None:
    """Or the tests below would look at nothing: each table with a user_id has rows of both."""
    for person in (room.ada, room.bob):
        assert set(await room.of(person)) == {*PEOPLES, "files"}
    assert {*REMOVED, "usage", "usage_days", "egress"} == {*PEOPLES, "restored_conversations"}
    assert set(STATEMENTS) >= set(PEOPLES)


async def test_nothing_of_a_person_is_left_but_what_the_receipt_says(room: Room) -> None:
    """In no table and in no file; what others have is as it was, and the receipt can be read again."""
    others, text_of_bob = await room.of(room.bob), await read(room.database, room.bob)
    files = {file.name: file.read_bytes() for file in room.folder.glob("*.parquet")}
    receipt = await room.departures.remove(room.ada, asked_by=None)
    assert receipt.done_at is not None
    assert told(receipt) == EXPECTED
    assert set(await room.of(room.ada)) == STAYS
    assert await room.of(room.bob) == others
    assert await read(room.database, room.bob) == text_of_bob
    assert room.announced == 1
    assert await room.departures.receipt(receipt.id) == receipt
    assert list(await room.departures.receipts()) == [receipt]
    for one in receipt.done.files:
        assert one.sha256_before == hashlib.sha256(files[one.file]).hexdigest()
    after = {hashlib.sha256(file.read_bytes()).hexdigest() for file in room.folder.glob("*.parquet")}
    assert after == {one.sha256_after for one in receipt.done.files}
    assert str(room.ada).encode() not in b"".join(file.read_bytes() for file in room.folder.iterdir())


async def test_what_was_used_stays_under_no_name(room: Room) -> None:
    """Sums are as they were; rows and sums are nobody's, without a key."""
    query = "SELECT sum(requests), sum(output_tokens) FROM usage_days"
    before = await rows(room.engine, query)
    await room.departures.remove(room.ada, asked_by=None)
    await room.departures.remove(room.bob, asked_by=None)
    assert await rows(room.engine, query) == before
    assert await rows(room.engine, "SELECT DISTINCT user_id, key_id, requests FROM usage_days") == [(NOBODY, None, 4)]
    assert await rows(room.engine, "SELECT user_id, key_id, count(*) FROM usage GROUP BY 1, 2") == [(NOBODY, None, 2)]


async def test_usage_goes_where_that_is_wanted(room: Room) -> None:
    """Then no sum of it stays."""
    receipt = await room.departures.remove(room.ada, asked_by=None, keeps_usage=False)
    assert (receipt.done.tables["usage"], receipt.done.tables["usage_days"]) == (1, 1)
    assert receipt.done.changed == {"audit_log": 1}
    assert await rows(room.engine, "SELECT DISTINCT user_id FROM usage") == [(room.bob,)]
    assert await rows(room.engine, "SELECT DISTINCT user_id FROM usage_days") == [(room.bob,)]


async def test_the_audit_log_keeps_what_was_done_without_the_name(room: Room) -> None:
    """Also who removed them; the name is nowhere any more, in no table."""
    receipt = await room.departures.remove(room.ada, asked_by=room.ada)
    alias = f"removed-{receipt.id.hex[-8:]}"
    query = "SELECT actor_name, action, subject FROM audit_log WHERE subject_id = :ada ORDER BY at, id"
    assert sorted(await rows(room.engine, query, ada=room.ada)) == [
        (alias, "user.remove", f"user {alias}"),
        ("root", "quota.set", f"user {alias}"),
    ]
    # Names are ids here.
    for table in ("audit_log", "users"):
        found = f"SELECT count(*) FROM {table} AS one WHERE (to_jsonb(one) - 'subject_id' - 'actor_id')::text LIKE :ada"  # noqa: S608
        assert await rows(room.engine, found, ada=f"%{room.ada}%") == [(0,)]


@pytest.mark.parametrize("step", LEAVING)
async def test_killed_at_any_step_it_goes_on(room: Room, database_url: str, step: str) -> None:
    """A process that ends by SIGKILL in the midst of it: the next run does the rest, and counts nothing twice."""
    departure = await room.departures.begin(room.ada, asked_by=None, keeps_usage=True)
    program = [sys.executable, "-m", "tests.upkeep.killed", database_url, str(room.folder), "130", step]
    process = await asyncio.create_subprocess_exec(*program)
    assert await process.wait() == -signal.SIGKILL
    assert (await room.departures.receipt(departure)).done_at is None
    assert [result.outcome for result in (await room.job()).results] == ["done"]
    receipt = await room.departures.receipt(departure)
    assert receipt.done_at is not None
    assert told(receipt) == EXPECTED
    assert set(await room.of(room.ada)) == STAYS
    assert len([file for file in room.folder.iterdir() if file.suffix in {".parquet", ".part"}]) == 2


async def test_a_file_of_theirs_alone_goes_even_when_killed_before_the_disk_knows(room: Room) -> None:
    """The table says that nothing is in it before the file goes; whoever comes next removes what is left."""
    await room.departures.remove(room.bob, asked_by=None)
    (file,) = room.folder.glob("messages_*.parquet")
    kept = file.read_bytes()
    await room.departures.remove(room.ada, asked_by=None)
    assert list(room.folder.iterdir()) == []
    # As if the power had gone between the two.
    file.write_bytes(kept)
    async with room.engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO archives VALUES (:id, 'messages', '2020_01', now(), :path, 2, 0, 0, '', '0014', now(),"
                " now())"
            ),
            {"id": uuid4(), "path": file.name},
        )
    carol = await add_somebody(room.database, room.engine, room.clock.time)
    await room.departures.remove(carol, asked_by=None)
    assert list(room.folder.iterdir()) == []
    assert await rows(room.engine, "SELECT count(*) FROM archives") == [(0,)]


async def test_what_comes_late_goes_too(room: Room) -> None:
    """An event that was on its way, and the end of an answer; the receipt tells of them."""
    receipt = await room.departures.remove(room.ada, asked_by=None)
    async with room.engine.begin() as connection:
        for table in ("usage", "member_answers", "council_runs"):
            values = {"id": uuid7(room.clock.time), "who": room.ada}
            await connection.execute(text(STATEMENTS[table]), values)
    for _ in range(2):
        await room.job()
        assert set(await room.of(room.ada)) == STAYS
        late = (await room.departures.receipt(receipt.id)).done.late
        assert late == {"usage": 1, "member_answers": 1, "council_runs": 1}
    assert LATE_DAYS > 1


async def test_a_damaged_file_is_waited_for(room: Room) -> None:
    """What it holds cannot be removed; the receipt is not complete and says why, and the person is out all the same."""
    (file,) = room.folder.glob("messages_*.parquet")
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    receipt = await room.departures.remove(room.ada, asked_by=None)
    assert receipt.done_at is None
    assert receipt.done.problems == [
        f"The archive's file {file.name} is not the one that was written: its SHA-256 differs."
    ]
    assert [result.outcome for result in (await room.job()).results] == ["failed"]
    file.write_bytes(content)
    assert [result.outcome for result in (await room.job()).results] == ["done"]
    assert told(await room.departures.receipt(receipt.id)) == EXPECTED


async def test_upkeep_that_is_at_work_does_it_at_its_end(room: Room, owner: Owner) -> None:
    """Whoever asks is not refused; the person is locked out at once."""
    async with owner.alone() as connection:
        assert connection is not None
        receipt = await room.departures.remove(room.ada, asked_by=None)
    assert receipt.done_at is None
    locked = "SELECT disabled_at IS NOT NULL, (SELECT count(*) FROM api_keys WHERE user_id = users.id AND revoked_at"
    assert await rows(room.engine, f"{locked} IS NULL) FROM users WHERE id = :ada", ada=room.ada) == [(True, 0)]
    again = await room.departures.remove(room.ada, asked_by=None)
    assert again.id == receipt.id
    assert again.done_at is not None


async def test_the_last_admin_stays(room: Room) -> None:
    """Somebody who could administer must be left."""
    async with room.engine.begin() as connection:
        await connection.execute(text("UPDATE users SET role = 'admin'"))
        await connection.execute(text("UPDATE users SET disabled_at = now() WHERE id = :bob"), {"bob": room.bob})
    with pytest.raises(Conflict, match="last admin"):
        await room.departures.remove(room.ada, asked_by=None)
    await room.departures.remove(room.bob, asked_by=room.ada)
    with pytest.raises(NotFound):
        await room.departures.remove(room.bob, asked_by=room.ada)
    with pytest.raises(NotFound):
        await room.departures.receipt(uuid4())
