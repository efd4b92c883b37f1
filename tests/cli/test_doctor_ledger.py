"""`wirthforge doctor ledger`: what it prints, and how it ends."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from redis.asyncio import Redis
from sqlalchemy import text

from server.cli import wirthforge
from server.db.session import Database
from server.errors import StartError, Unavailable, WirthforgeError
from tests.cli.programs import House
from tests.usage.rig import Rig

HEADINGS = "person  window  tokens  = rows  + events  + reserved  requests  = rows  + events  + held"


@pytest.fixture
async def rig(redis: Redis, database_url: str) -> AsyncIterator[Rig]:
    """A ledger and rows, without a server."""
    database = Database(database_url, connections_max=2)
    yield await Rig(redis, database).open()
    await database.close()


@pytest.fixture
def services(database_url: str, redis_url: str) -> dict[str, str]:
    """Where they are."""
    return {"DATABASE_URL": database_url.replace("+asyncpg", ""), "REDIS_URL": redis_url}


async def doctor(services: dict[str, str], *words: str) -> Result:
    """The command, in a thread of this process, since it runs a loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, wirthforge, ["doctor", *words], env=services)


async def test_it_tells_that_all_is_well_and_what_is_not(rig: Rig, house: House, services: dict[str, str]) -> None:
    """A table and exit 0; a sentence for each breach and exit 1; the same for programs."""
    entries = [await rig.enter() for _ in range(3)]
    await rig.end(entries[0], 30)
    await rig.write()
    await rig.end(entries[1], 3)
    done = await doctor(services, "ledger")
    assert done.exit_code == 0
    heading, month, day, blank, state, note, well = done.output.splitlines()
    assert re.sub(" {2,}", "  ", heading) == HEADINGS
    assert month.split() == ["ann", "2026-01", "153", "40", "13", "100", "3", "1", "1", "1"]
    assert day.split() == ["ann", "2026-01-31", *month.split()[2:]]
    assert (blank, state) == ("", "0 servers; 1 requests run, 0 wait; 1 events not yet written")
    # It has been months since then.
    assert note == "note    1 request ran on a server that is gone; the next server settles that."
    assert well == "ok      every admitted request has one usage row, and budgets are the sum of the rows"

    async with rig.database.transaction(everybody=True) as session:
        await session.execute(text("UPDATE usage SET output_tokens = 31"))
    program = house.run("doctor", "ledger", settings=services)
    assert (program.returncode, program.stderr) == (1, "")
    assert [line.split()[-1] for line in program.stdout.splitlines()[1:3]] == ["!", "!"]
    assert [line.partition("  ")[0] for line in program.stdout.splitlines()[6:]] == ["broken", "broken"]
    assert "holds 153 tokens: 1 less than the 41 of usage rows" in program.stdout

    done = await doctor(services, "ledger", "--json")
    told = json.loads(done.output)
    assert (done.exit_code, told["is_well"], told["looks"]) == (1, False, 4)
    assert {breach["rule"] for breach in told["broken"]} == {"tokens"}
    assert told["lines"][0] | {"row_tokens": 41, "budget_requests": 3} == told["lines"][0]


async def refusal(services: dict[str, str], *words: str) -> WirthforgeError:
    """What `main` prints as one sentence."""
    done = await doctor(services, *words)
    assert isinstance(done.exception, WirthforgeError)
    assert done.output == ""
    return done.exception


async def test_who_cannot_be_asked_is_named(services: dict[str, str], tmp_path: Path) -> None:
    """One sentence, without a table; flags may come before the subcommand as well."""
    nowhere = {**services, "REDIS_URL": f"unix://{tmp_path}/nobody-listens-here.sock"}
    error = await refusal(nowhere, "ledger")
    assert isinstance(error, Unavailable)
    assert error.message == "Redis cannot be reached (ConnectionError): is REDIS_URL right?"
    unset = {"DATABASE_URL": "", "REDIS_URL": ""}
    for words in (("ledger", "--data-dir", str(tmp_path)), ("--data-dir", str(tmp_path), "ledger")):
        error = await refusal(unset, *words)
        assert isinstance(error, StartError)
        assert str(tmp_path) in error.message


async def test_nobody_has_asked_yet(services: dict[str, str], tmp_path: Path) -> None:
    """An empty box is well; and the command that has no subcommand goes on."""
    done = await doctor(services, "ledger")
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "Nobody has asked for anything yet.")
    assert "postgres" in (await doctor(services, "--data-dir", str(tmp_path))).output
