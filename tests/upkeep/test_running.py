"""Who runs the jobs: a plain owner of the tables, a server once a day, and people by hand."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from server.cli import wirthforge as command
from server.db.migrate import migrate
from server.db.session import APP_ROLE, Database, async_url
from server.errors import Unavailable
from server.settings import Settings
from server.upkeep.jobs import Job, Turn, run_jobs
from server.upkeep.joined import archive_of, jobs_of
from server.upkeep.loop import AGAIN_MS, EVERY_MS, FIRST_MS, Upkeep
from server.upkeep.owner import Owner
from tests.clocks import FakeClock
from tests.upkeep.chats import add_chat, add_person, read
from tests.upkeep.conftest import StillClock, rows

JOBS = ("partitions", "usage", "hardware", "expire", "forget", "archive", "cloud ends", "departures")


@pytest.fixture
async def owned_url(postgres_url: str) -> AsyncIterator[str]:
    """A database that belongs to somebody who is no superuser, migrated by them."""
    name = f"wf_owner_{uuid4().hex[:8]}"
    admin = create_async_engine(async_url(postgres_url), isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.execute(text(f"CREATE ROLE {name} LOGIN CREATEROLE"))
        if await connection.scalar(text("SELECT count(*) FROM pg_roles WHERE rolname = :app"), {"app": APP_ROLE}):
            await connection.execute(text(f"GRANT {APP_ROLE} TO {name} WITH ADMIN OPTION"))
        await connection.execute(text(f"CREATE DATABASE {name} OWNER {name}"))
    url = make_url(async_url(postgres_url)).set(username=name, database=name).render_as_string(hide_password=False)
    await migrate(url)
    yield url
    async with admin.connect() as connection:
        await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        await connection.execute(text(f"REVOKE {APP_ROLE} FROM {name}"))
        await connection.execute(text(f"DROP ROLE {name}"))
    await admin.dispose()


async def test_an_owner_without_further_rights_does_all_of_it(
    owned_url: str, clock: StillClock, tmp_path: Path
) -> None:
    """Rows that came too early, old months, what was removed: policies are forced, and let the owner do its work."""
    settings = Settings(database_url=owned_url, data_dir=tmp_path)
    database, engine = Database(owned_url, connections_max=1), create_async_engine(async_url(owned_url))
    ada, bob = await add_person(database), await add_person(database)
    chat, gone = await add_chat(database, ada, clock.now()), await add_chat(database, bob, clock.now())
    early = await add_chat(database, ada, clock.now() + timedelta(days=125))
    before = await read(database, ada)
    clock.time += timedelta(days=130)

    async def run() -> list[tuple[str, str, str]]:
        jobs = jobs_of(settings)
        results = run_jobs(Owner(owned_url), jobs, clock, lambda *_: None)
        return [(result.job, result.outcome, result.note) async for result in results]

    done = [(job.name, "done", "") for job in jobs_of(settings)]
    assert await run() == done
    assert await rows(engine, "SELECT DISTINCT conversation_id FROM messages") == [(early,)]
    assert await rows(engine, "SELECT count(*) FROM messages_default") == [(0,)]
    async with database.transaction(of=bob) as session:
        await session.execute(text("DELETE FROM conversations"))
    assert await run() == done
    archive = archive_of(settings, database, clock)
    assert {row["conversation_id"] async for _, row in archive.read(ada)} == {chat}
    assert [row async for _, row in archive.read(bob)] == []
    assert await archive.restore(bob, gone) == 0
    assert await archive.restore(ada, chat) == 7
    assert await read(database, ada) == before
    await engine.dispose()
    await database.close()


async def test_a_server_runs_the_jobs_once_a_day(owner: Owner) -> None:
    """Soon after it starts and then daily; sooner where a job failed, which keeps no other from running."""
    clock, ran, fails = FakeClock(), [], True

    async def failing(_: Turn) -> None:
        ran.append("failing")
        if fails:
            raise Unavailable("Not now.")

    async def fine(_: Turn) -> None:
        ran.append("fine")

    upkeep = Upkeep(owner, [Job("failing", "", failing), Job("fine", "", fine)], clock)
    loop = asyncio.create_task(upkeep.run())
    for wait_ms, count in ((FIRST_MS, 2), (AGAIN_MS, 4), (EVERY_MS, 6)):
        while not clock._sleepers:
            await owner_answers(owner)
        assert len(ran) == count - 2
        clock.advance(timedelta(milliseconds=wait_ms - 1))
        await owner_answers(owner)
        assert len(ran) == count - 2
        fails = count < 4
        clock.advance(timedelta(milliseconds=1))
        while len(ran) < count:
            await owner_answers(owner)
    loop.cancel()
    await asyncio.wait([loop])
    assert ran == ["failing", "fine"] * 3


async def owner_answers(owner: Owner) -> None:
    """One round trip, in which others go on."""
    async with owner.connection():
        pass


async def test_a_postgres_that_is_away_is_waited_for(clock: StillClock) -> None:
    """The server goes on, and tries again."""
    upkeep = Upkeep(Owner("postgresql://nobody@127.0.0.1:1/none"), [], clock)
    assert not await upkeep.step()


async def wirthforge(settings: Settings, *arguments: str) -> Result:
    """The command, in a thread, since it runs a loop of its own."""
    environment = {"DATABASE_URL": settings.database_url, "WIRTHFORGE_DATA_DIR": str(settings.data_dir)}
    return await asyncio.to_thread(CliRunner().invoke, command, ["upkeep", *arguments], env=environment)


async def test_people_run_jobs_by_hand(settings: Settings, owner: Owner, engine: AsyncEngine, tmp_path: Path) -> None:
    """All or one of them, or only to see; and they see how things are."""
    settings = replace(settings, data_dir=tmp_path)
    seen = await wirthforge(settings, "status")
    assert [line.split()[0] for line in seen.stdout.splitlines() if line] == [
        "table", "messages", "member_answers", "usage", "council_runs", "hardware_samples", "archive:",
        *(name.split()[0] for name in JOBS),
    ]  # fmt: skip
    assert seen.stdout.splitlines()[-1] == "departures   never ran"
    tried = await wirthforge(settings, "run", "--dry-run", "--job", "archive")
    assert tried.stdout.splitlines()[0] == "archive: nothing that is older than 90 days"
    assert (seen.exit_code, tried.exit_code) == (0, 0)
    unknown = await wirthforge(settings, "run", "--job", "nothing")
    assert str(unknown.exception) == f"There is no job nothing: {', '.join(JOBS)}."
    ran = await wirthforge(settings, "run", "departures", "partitions")
    assert (ran.exit_code, ran.stdout.splitlines()[0]) == (0, "departures: nobody is to be removed")
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO upkeep_runs (job, began_at, said) VALUES ('usage', now(), '')"))
    told = {line.split()[0]: line for line in (await wirthforge(settings, "status")).stdout.splitlines() if line}
    assert re.search(r" UTC  done in \d+\.\d s: all partitions up to", told["partitions"])
    assert told["usage"].endswith(" UTC  runs, or was killed")
    assert told["archive"] == "archive      never ran"  # a dry run is none
    async with owner.alone():
        refused = await wirthforge(settings, "run")
    assert (refused.exit_code, refused.stdout) == (0, "")
    assert refused.stderr == "Nothing is done: another server, or another command, is at it.\n"


async def test_what_is_missing_is_told(settings: Settings, engine: AsyncEngine, tmp_path: Path) -> None:
    """By the status, which says what to run; and that makes it."""
    settings = replace(settings, data_dir=tmp_path)
    ((last,),) = await rows(engine, "SELECT max(relname) FROM pg_class WHERE relname ~ '^messages_20.._..$'")
    async with engine.begin() as connection:
        await connection.execute(text(f"DROP TABLE {last}"))
    told = await wirthforge(settings, "status")
    assert told.exit_code == 1
    assert told.stderr == f"Missing: {last}. Run `wirthforge upkeep run --job partitions`.\n"
    made = await wirthforge(settings, "run", "--job", "partitions")
    assert made.stdout.splitlines()[0] == f"partitions: made {last}"
    assert (await wirthforge(settings, "status")).exit_code == 0
