"""`wirthforge cloud policy`: what may leave, set and read back from the command line."""

from collections.abc import Mapping

import pytest

from server.db.session import Database
from tests.cli.programs import House

DEAD_REDIS = "redis://127.0.0.1:1"


@pytest.fixture
def settings(database_url: str) -> Mapping[str, str]:
    """A database without a server; policies need nothing else."""
    return {"DATABASE_URL": database_url.replace("+asyncpg", ""), "REDIS_URL": DEAD_REDIS}


def _set(house: House, settings: Mapping[str, str], *words: str) -> str:
    return house.ask("cloud", "policy", "set", *words, settings=settings)


def _rows(table: str) -> dict[str, list[str]]:
    return {name: rest for name, *rest in (line.split() for line in table.splitlines())}


def test_the_box_and_one_person(house: House, settings: Mapping[str, str]) -> None:
    """Set, amended and silenced; what is in force for a person reads back with who won."""
    assert house.ask("cloud", "policy", "show", settings=settings) == "box  says nothing"
    house.ask("user", "add", "ann", settings=settings)
    words = ("--is-on", "yes", "--mode", "allow", "--for", "openai/gpt-*=ask, elsewhere=never", "--patience-ms", "9000")
    told = "box  is_on yes, mode allow, for openai/gpt-*=ask,elsewhere/*=never, patience_ms 9000"
    assert _set(house, settings, "--box", *words) == told
    assert _set(house, settings, "--user", "ANN", "--allows-code", "no") == "user ann  allows_code no"
    told = "box  is_on yes, for openai/gpt-*=ask,elsewhere/*=never, patience_ms 9000, detection_model tiny"
    assert _set(house, settings, "--box", "--mode", "inherit", "--detection-model", "tiny") == told
    assert house.ask("cloud", "policy", "show", settings=settings).splitlines() == [
        f"box       {told.removeprefix('box  ')}",
        "user ann  allows_code no",
    ]
    assert _rows(house.ask("cloud", "policy", "show", "ann", settings=settings)) == {
        "is_on": ["yes", "box"],
        "mode": ["ask", "built-in"],
        "on_personal_data": ["ask", "built-in"],
        "replaces": ["no", "built-in"],
        "allows_code": ["no", "cap"],
        "patience_ms": ["9000", "box"],
        "council_members": ["no", "built-in"],
        "detection_model": ["tiny", "box"],
        "detection_ms": ["2000", "built-in"],
    }


def test_words_that_will_not_do(house: House, settings: Mapping[str, str]) -> None:
    """Each is refused with a sentence that says what would, and nothing is set."""
    for words, sentence in (
        (("--box", "--mode", "maybe"), "mode is one of never, ask, pseudonymised, allow."),
        (("--box", "--for", "openai"), "Providers and models in for are names, or patterns with *"),
        (("--box", "--patience-ms", "soon"), "patience_ms is a whole number of milliseconds from 0 to 86400000."),
        (("--box",), "Name at least one field: `wirthforge cloud policy set --help` lists them."),
        (("--mode", "ask"), "Say whose policy it is: --box or --user NAME, and one of them only."),
        (("--user", "nobody", "--mode", "ask"), "There is nobody named 'nobody'."),
    ):
        assert house.refusal("cloud", "policy", "set", *words, settings=settings).startswith(sentence)
    assert house.ask("cloud", "policy", "show", settings=settings) == "box  says nothing"


async def test_the_log_names_the_command_line(house: House, settings: Mapping[str, str], database_url: str) -> None:
    """And the version of the policies counts it, so that a running server sees it."""
    _set(house, settings, "--box", "--is-on", "yes")
    database = Database(database_url, connections_max=1)
    async with database.transaction() as session:
        log = (await session.connection()).exec_driver_sql(
            "SELECT actor_name, action, subject FROM audit_log, cloud_version WHERE cloud_version.version = 1"
        )
        assert [tuple(row) for row in await log] == [("command line", "cloud_policy.set", "cloud policy of the box")]
    await database.close()
