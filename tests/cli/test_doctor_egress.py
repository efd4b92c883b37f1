"""`wirthforge doctor egress`: what it prints, and how it ends."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner, Result

from server.cli import wirthforge
from server.db.session import Database
from tests.cli.programs import House
from tests.privacy.ledgers import opened, some, tamper


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """With two people, and nothing that left."""
    async with opened(database_url) as database:
        yield database


@pytest.fixture
def services(database_url: str) -> dict[str, str]:
    """Where the database is."""
    return {"DATABASE_URL": database_url.replace("+asyncpg", "")}


async def doctor(services: dict[str, str], *words: str) -> Result:
    """The command, in a thread of this process, since it runs a loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, wirthforge, ["doctor", *words], env=services)


async def test_it_tells_that_all_is_well_and_what_is_not(
    database: Database, database_url: str, house: House, services: dict[str, str]
) -> None:
    """The head and exit 0; a sentence for each breach and exit 1; the same for programs."""
    done = await doctor(services, "egress")
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "Nothing has left yet.")
    entries = await some(database, 2)
    done = await doctor(services, "egress")
    head = f"4:{entries[-1].hash.hex()}"
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "4 entries; 0 of what left has no end yet",
        f"head    {head}",
        "ok      every entry is as it was written, and none is missing",
    ]
    assert (await doctor(services, "egress", "--noted", head)).exit_code == 0
    done = await doctor(services, "egress", "--noted", f"4:{'0' * 64}", "--noted", head.replace("4:", "9:", 1))
    assert (done.exit_code, "Entry 4 is not the one that was noted" in done.output) == (1, True)

    await tamper(database_url, "UPDATE egress SET body_bytes = 1 WHERE seq = 3")
    program = house.run("doctor", "egress", settings=services)
    assert (program.returncode, program.stderr) == (1, "")
    assert program.stdout.splitlines() == [
        "2 entries; 0 of what left has no end yet",
        f"head    2:{entries[1].hash.hex()}",
        "broken  Entry 3 is not as it was written: it was changed.",
    ]
    done = await doctor(services, "egress", "--json")
    told = json.loads(done.output)
    assert (done.exit_code, told["is_well"], told["entries"]) == (1, False, 2)
    assert told["broken"] == [
        {"rule": "changed", "subject": "3", "sentence": "Entry 3 is not as it was written: it was changed."}
    ]


async def test_a_noted_head_has_a_form(services: dict[str, str]) -> None:
    """What is none is told with the option's name."""
    for given in ("4", "4:abc", f"x:{'0' * 64}", ""):
        done = await doctor(services, "egress", "--noted", given)
        assert done.exit_code == 2
        assert "--noted" in done.output
