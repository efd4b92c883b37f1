"""`migrate`: alone, from several places at once, `--check` and `--wait`; each command is a process of its own."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from tests.cli.programs import COMMAND, ENDS_S_MAX, NEWEST, House, environment
from tests.conftest import _with_database, execute

NOBODY = "postgresql://nobody@127.0.0.1:1/nothing"


@pytest.fixture
async def empty_url(postgres_url: str) -> AsyncIterator[str]:
    """A database without a schema."""
    name = f"wirthforge_schema_{uuid4().hex[:8]}"
    await execute(postgres_url, f"CREATE DATABASE {name}")
    yield _with_database(postgres_url, name)
    await execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


async def begun(house: House, *words: str, url: str) -> asyncio.subprocess.Process:
    """A command that runs by itself."""
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *words,
        cwd=house.home,
        env=environment(house.home, DATABASE_URL=url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def ended(program: asyncio.subprocess.Process) -> tuple[int, str, str]:
    """Its exit status, and what it said on both ways."""
    out, err = await asyncio.wait_for(program.communicate(), ENDS_S_MAX * 2)
    assert program.returncode is not None
    return program.returncode, out.decode().strip(), err.decode().strip()


async def test_several_migrate_at_once(house: House, empty_url: str) -> None:
    """As three pods might: each ends well, and the schema is there once and whole."""
    programs = await asyncio.gather(*(begun(house, "migrate", url=empty_url) for _ in range(3)))
    for status, out, err in await asyncio.gather(*map(ended, programs)):
        assert (status, err) == (0, "")
        assert out.removesuffix(" already.").removesuffix(".") == f"The database is at revision {NEWEST}"
    status, out, _ = await ended(await begun(house, "migrate", "--check", url=empty_url))
    assert (status, out) == (0, f"The database is at revision {NEWEST}.")


async def test_a_check_changes_nothing_and_says_what_it_found(house: House, empty_url: str, database_url: str) -> None:
    """Exit status 0 where the schema is the newest; else 1, and one sentence."""

    async def refusal(url: str) -> str:
        return await asyncio.to_thread(house.refusal, "migrate", "--check", settings={"DATABASE_URL": url})

    needed = f"The database has no schema, and revision {NEWEST} is needed: run `wirthforge migrate`."
    assert await refusal(empty_url) == needed
    assert await refusal(empty_url) == needed
    assert (await refusal(NOBODY)).startswith("Postgres cannot be used: ")
    said = await asyncio.to_thread(house.ask, "migrate", "--check", settings={"DATABASE_URL": database_url})
    assert said == f"The database is at revision {NEWEST}."
    await execute(database_url, "UPDATE alembic_version SET version_num = '0001'")
    older = f"The database is at revision 0001, and revision {NEWEST} is needed: run `wirthforge migrate`."
    assert await refusal(database_url) == older
    await execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    assert "9999, which this version does not know: it was migrated by a newer version." in await refusal(database_url)


async def test_waiting_ends_as_soon_as_somebody_has_migrated(house: House, empty_url: str) -> None:
    """It says what it waits for, changes nothing itself, and ends well after another one's migration."""
    waiting = await begun(house, "migrate", "--wait", url=empty_url)
    assert waiting.stderr is not None
    first = await asyncio.wait_for(waiting.stderr.readline(), ENDS_S_MAX)
    assert first.decode().startswith("The database has no schema, and revision")
    assert (await ended(await begun(house, "migrate", url=empty_url)))[0] == 0
    assert await ended(waiting) == (0, f"The database is at revision {NEWEST}.", "")


async def test_waiting_is_bounded(house: House) -> None:
    """After the seconds that are given it says what did not come."""
    status, out, err = await ended(await begun(house, "migrate", "--wait", "1", url=NOBODY))
    assert (status, out) == (1, "")
    assert err.splitlines()[0].startswith("Postgres cannot be used: ")
    assert err.splitlines()[-1].startswith("wirthforge: Waited for 1 seconds. Postgres cannot be used: ")


async def test_nobody_waits_for_a_newer_schema_to_grow_old(house: House, database_url: str) -> None:
    """It ends at once, however long it might wait."""
    await execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    status, _, err = await ended(await begun(house, "migrate", "--wait", "600", url=database_url))
    assert status == 1
    assert "it was migrated by a newer version" in err


def test_waiting_takes_seconds(house: House) -> None:
    """Anything else is told in click's words."""
    done = house.run("migrate", "--wait", "soon", settings={"DATABASE_URL": NOBODY})
    assert done.returncode == 2
    assert "'soon' is not a valid integer" in done.stderr
