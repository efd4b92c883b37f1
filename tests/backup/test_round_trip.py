"""From one database to another: rows, partitions, policies; while others write; from an older schema."""

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import UUID, uuid4

import pytest
from alembic import command
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from server.backup.making import LEFT_OUT
from server.clock import SystemClock, uuid7
from server.db import migrate as migrations
from server.db.migrate import require_newest
from server.db.models import Base
from server.db.session import Database, async_url
from server.errors import StartError
from tests.backup.conftest import Box, MakePlace, Place, run
from tests.backup.rows import contents
from tests.cli.programs import NEWEST

OLDER = "0009"
FORCED = (
    "SELECT relname, relrowsecurity, relforcerowsecurity,"
    " array(SELECT polname || ' ' || pg_get_expr(polqual, polrelid) || ' ' || pg_get_expr(polwithcheck, polrelid)"
    "   FROM pg_policy WHERE polrelid = pg_class.oid ORDER BY polname)"
    " FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY relname"
)
RIGHTS = (
    "SELECT relname, array(SELECT privilege FROM unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege"
    "   WHERE has_table_privilege('wirthforge_app', oid, privilege))"
    " FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY relname"
)
SHAPE = (
    "SELECT relname, pg_get_expr(relpartbound, oid),"
    " array(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = pg_class.oid ORDER BY 1),"
    " array(SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = pg_class.oid ORDER BY 1)"
    " FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY relname"
)
OWNERS = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
MESSAGE = (
    "INSERT INTO messages (id, conversation_id, user_id, role, content, thinking, model, state, created_at, updated_at)"
    " VALUES (:id, :id, :id, 'user', 'words', '', 'm', 'complete', now(), now())"
)
USAGE = (
    "INSERT INTO usage (request_id, user_id, surface, model, engine, input_tokens, output_tokens, queue_ms, total_ms,"
    " outcome, started_at) VALUES (:id, :id, 'chat', 'm', 'e', 1, 2, 3, 4, 'completed', now())"
)
FUNCTIONS = (
    "SELECT proname, prosecdef, has_function_privilege('wirthforge_app', oid, 'EXECUTE'), proowner = relowner"
    " FROM pg_proc, (SELECT relowner FROM pg_class WHERE relname = 'users') AS users"
    " WHERE pronamespace = 'public'::regnamespace ORDER BY proname"
)


async def ask(url: str, query: str) -> list[tuple[object, ...]]:
    """All rows of one query."""
    engine = create_async_engine(async_url(url))
    async with engine.connect() as connection:
        found = [tuple(row) for row in await connection.execute(text(query))]
    await engine.dispose()
    return found


async def test_everything_comes_back(box: Box, source: Place, target: Place) -> None:
    """Each row of each table, in its partition; keys, policies, rights, functions; and somebody else owns it all."""
    manifest = await box.backup(source)
    before = await contents(source.url)
    noted = await ask(source.url, "SELECT outcome, ended_at >= began_at FROM upkeep_runs WHERE job = 'backup'")
    # It is not whole; see the manifest.
    assert noted == [("failed", True)]
    assert {*manifest.counts, *LEFT_OUT} == set(Base.metadata.tables)
    assert min(manifest.counts.values()) >= 1
    # The table of the archive has a row like the others; its file is not there.
    assert (manifest.revision, len(manifest.missing)) == (NEWEST, 1)
    assert box.file.stat().st_mode & 0o777 == 0o600
    assert [path for path in box.file.parent.iterdir() if path != box.data_dir] == [box.file]

    assert await box.restore(target) == manifest
    after = await contents(target.url)
    for table in LEFT_OUT:
        assert before.pop(table) != after.pop(table) == []
    assert before == after
    assert sum(1 for name, rows in after.items() if name.startswith("messages_") and rows) == 3
    assert len(after["messages_default"]) == 1
    for query in (FORCED, RIGHTS, SHAPE, FUNCTIONS):
        assert await ask(source.url, query) == await ask(target.url, query)
    assert await ask(target.url, OWNERS) == [(target.owner,)]
    assert box.lines[-1] == "  restored: all counts are those of the backup, and row-level security holds"
    await require_newest(target.url)
    assert not (box.data_dir.with_name("restored") / "restore.part").exists()


async def test_isolation_is_in_force_afterwards(box: Box, source: Place, target: Place) -> None:
    """In the restored box the app sees a person's rows in their transactions alone, and searches them alone."""
    await box.backup(source)
    await box.restore(target)
    ((user_id,),) = await ask(target.url, "SELECT id FROM users")
    assert isinstance(user_id, UUID)
    database = Database(target.url, connections_max=1)
    try:
        for of, seen in ((user_id, 4), (uuid4(), 0), (None, 0)):
            async with database.transaction(of=of) as session:
                assert await session.scalar(text("SELECT count(*) FROM messages")) == seen
                assert await session.scalar(text("SELECT count(*) FROM found_messages('quoted')")) == seen
        with pytest.raises(DBAPIError, match="permission denied"):
            async with database.transaction(of=user_id) as session:
                await session.execute(text("SELECT * FROM messages_default"))
    finally:
        await database.close()
    # The new owner's own jobs see everything.
    assert await ask(target.url, "SELECT count(*) FROM messages") == [(4,)]


@pytest.fixture
async def writer(source: Place) -> AsyncIterator[Callable[[], int]]:
    """Somebody who adds messages and their usage all the time; how many there are so far."""
    engine = create_async_engine(async_url(source.url))
    written, stopping = 0, asyncio.Event()

    async def write() -> None:
        nonlocal written
        while not stopping.is_set():
            async with engine.begin() as connection:
                for statement in (MESSAGE, USAGE):
                    await connection.execute(text(statement), {"id": uuid7(SystemClock().now())})
            written += 1

    writing = asyncio.create_task(write())
    yield lambda: written
    stopping.set()
    await writing
    await engine.dispose()


async def test_counts_agree_while_people_write(
    box: Box, source: Place, target: Place, writer: Callable[[], int]
) -> None:
    """A backup is one moment: its manifest counts what its dump holds, and what is written later is in neither."""
    while writer() < 3:
        await SystemClock().sleep_ms(10)
    begun = writer()
    manifest = await box.backup(source)
    ended = writer()
    assert 4 + begun <= manifest.counts["messages"] == manifest.counts["usage"] < 4 + ended
    await box.restore(target)
    for table in ("messages", "usage"):
        assert await ask(target.url, f"SELECT count(*) FROM {table}") == [(manifest.counts[table],)]  # noqa: S608


def _upgrade_to_older(connection: Connection) -> None:
    config, _ = migrations._migrations()
    config.attributes["connection"] = connection
    command.upgrade(config, OLDER)


async def test_an_older_schema_is_migrated(box: Box, make_place: MakePlace, target: Place) -> None:
    """A backup of an older version is restored as it is, and then brought up to date."""
    old = await make_place()
    engine = create_async_engine(async_url(old.url))
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade_to_older)
        await connection.execute(text("INSERT INTO users VALUES (gen_random_uuid(), 'ann', 'member', NULL, now())"))
    await engine.dispose()
    assert (await box.backup(old)).revision == OLDER
    await box.restore(target)
    assert box.lines[-1] == f"  migrated from revision {OLDER} to {NEWEST}"
    assert await ask(target.url, "SELECT name FROM users") == [("ann",)]
    await require_newest(target.url)


@pytest.fixture
async def archived(box: Box, source: Place) -> dict[str, bytes]:
    """Files of the archive, whole ones, and two that are not what the table says: their names, and what is in them."""
    files = {"messages/2026_01.parquet": b"one" * 400_000, "messages/2026_02.parquet": b"two", "usage/x.parquet": b""}
    (archive := box.data_dir / "archive").mkdir()
    await run(source.url, "DELETE FROM restored_conversations", "DELETE FROM archives")
    for number, (name, content) in enumerate([*files.items(), ("gone", b"gone"), ("other", b"other")]):
        await run(
            source.url,
            "INSERT INTO archives (id, table_name, month, ends, path, generation, rows, file_bytes, sha256, revision,"  # noqa: S608
            f" archived_at) VALUES (gen_random_uuid(), 't', '{number}', now(), '{name}', 1, 1, {len(content)},"
            f" sha256('{content.decode()}'), '0012', now())",
        )
        (archive / name).parent.mkdir(exist_ok=True)
        (archive / name).write_bytes(content)
    words = {"messages/2026_02.json": b'{"rows": 1}'}
    (archive / "messages" / "2026_02.json").write_bytes(words["messages/2026_02.json"])
    (archive / "gone").unlink()
    (archive / "other").write_bytes(b"thing")
    (archive / "left by a job that was killed").write_bytes(b"what somebody removed")
    return {**files, **words}


async def test_the_archive_comes_along(box: Box, source: Place, target: Place, archived: dict[str, bytes]) -> None:
    """Files that the database names are in the backup and in the restored box; what is not whole is told."""
    manifest = await box.backup(source)
    assert list(manifest.missing) == ["archive/gone", "archive/other"]
    restored = box.data_dir.with_name("restored") / "archive"
    # One is there already, from a restore that was killed.
    (restored / "usage").mkdir(parents=True)
    (restored / "usage" / "x.parquet").write_bytes(b"")
    await box.restore(target)
    found = {path.relative_to(restored).as_posix(): path.read_bytes() for path in restored.rglob("*") if path.is_file()}
    assert found == archived
    assert {path.stat().st_mode & 0o777 for path in restored.glob("messages/*")} == {0o600}


@pytest.mark.parametrize("content", [b"not the same", b"no!"])
async def test_an_archive_of_another_box_is_not_touched(
    box: Box, source: Place, target: Place, archived: dict[str, bytes], content: bytes
) -> None:
    """Where files lie that are not those of the backup, nothing is restored, neither there nor in the database."""
    assert archived
    await box.backup(source)
    other = box.data_dir.with_name("restored") / "archive" / "messages" / "2026_02.parquet"
    other.parent.mkdir(parents=True)
    other.write_bytes(content)
    with pytest.raises(StartError, match="which is not in this backup: move"):
        await box.restore(target)
    assert other.read_bytes() == content
    assert await contents(target.url) == {}
