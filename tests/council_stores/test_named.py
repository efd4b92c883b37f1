"""Councils that admins name: known to every replica, checked, and logged."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from server.clock import SystemClock
from server.council import named as named_module
from server.council.named import COUNCILS_MAX, READ_EVERY_MS, Definition, NamedCouncils
from server.council.names import parse
from server.council.strategies import BUILT_IN
from server.db.models import AuditEntry
from server.db.session import Database
from server.errors import Conflict, InvalidRequest, NotFound, Unavailable
from tests.clocks import FakeClock
from tests.council_stores.parts import someone
from tests.usage.test_writer import no_database

PAIR = Definition(members=("small", "large"), strategy="vote")
ROOT = someone("root")


@pytest.fixture
def replica(database: Database, clock: FakeClock) -> NamedCouncils:
    """As one replica knows them."""
    return NamedCouncils(database, clock, strategies=lambda: BUILT_IN)


@pytest.fixture
def other(database: Database, clock: FakeClock) -> NamedCouncils:
    """As another does."""
    return NamedCouncils(database, clock, strategies=lambda: BUILT_IN)


async def test_a_council_is_known_at_once_here_and_soon_elsewhere(
    replica: NamedCouncils, other: NamedCouncils, clock: FakeClock
) -> None:
    """Defined, changed and removed; a request asks nobody."""
    running = asyncio.create_task(other.run())

    async def told(names: list[str]) -> None:
        assert [council.name for council in replica.known] == names
        while [council.name for council in other.known] != names:
            clock.advance(timedelta(milliseconds=READ_EVERY_MS))
            await SystemClock().sleep_ms(5)

    try:
        made = await replica.put(ROOT, "thinkers", PAIR)
        assert replica.get("thinkers") == made
        await replica.put(ROOT, "a", PAIR)
        await told(["a", "thinkers"])
        assert other.get("thinkers") == made
        await replica.remove(ROOT, "a")
        await told(["thinkers"])
        assert replica.get("a") is other.get("a") is None
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_what_is_read_while_something_changes_takes_nothing_back(
    replica: NamedCouncils, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow answer of before the change does not hide it."""
    listed, reads = replica.all, 0

    async def slow() -> Any:
        nonlocal reads
        found, reads = await listed(), reads + 1
        if reads == 1:
            await replica.put(ROOT, "thinkers", PAIR)
        return found

    monkeypatch.setattr(replica, "all", slow)
    await replica.read()
    assert (reads, [council.name for council in replica.known]) == (2, ["thinkers"])


async def test_postgres_away_leaves_what_is_known(replica: NamedCouncils, database_url: str, postgres_url: str) -> None:
    """Named councils go on being served, and nothing is changed half."""
    made = await replica.put(ROOT, "thinkers", PAIR)
    async with no_database(database_url, postgres_url):
        for change in (replica.put(ROOT, "thinkers", replace(PAIR, rounds=2)), replica.remove(ROOT, "thinkers")):
            with pytest.raises(Unavailable):
                await change
        with pytest.raises(Unavailable):
            await replica.read()
    assert replica.get("thinkers") == made


@pytest.mark.parametrize("name", ["a", "0a", "a-", "self-made", "x" * 40, "12-1"])
async def test_names_that_can_be_asked_for(replica: NamedCouncils, name: str) -> None:
    """What can be defined is what a model's name can say."""
    await replica.put(ROOT, name, PAIR)
    assert parse(f"council:{name}").named == name


@pytest.mark.parametrize("name", ["", "self", "3", "007", "-a", "A", "a b", "a:b", "x" * 41, "ä", "a\0", "a\n", "٣"])
async def test_names_that_cannot(replica: NamedCouncils, name: str) -> None:
    """They are refused, and removing them finds nothing."""
    with pytest.raises(InvalidRequest, match="A council's name") as caught:
        await replica.put(ROOT, name, PAIR)
    assert (caught.value.code, caught.value.param) == ("council_name", "name")
    with pytest.raises(NotFound):
        await replica.remove(ROOT, name)
    with pytest.raises(NotFound):
        await replica.one(name)


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"members": ()}, "members", "1 to 6 members, not 0"),
    ({"members": tuple("abcdefg")}, "members", "1 to 6 members, not 7"),
    ({"members": ("a", "b", "a")}, "members", "a is named twice"),
    ({"members": ("a", "council")}, "members", "council is itself a council"),
    ({"members": ("a", "council:thinkers")}, "members", "council:thinkers is itself a council"),
    ({"members": ("",)}, "members", "printable"),
    ({"members": ("a\0b",)}, "members", "printable"),
    ({"members": ("a\ud800",)}, "members", "printable"),
    ({"members": ("x" * 201,)}, "members", "printable"),
    ({"chair": "council:3"}, "chair", "itself a council"),
    ({"chair": ""}, "chair", "printable"),
    ({"strategy": "vot"}, "strategy", "There is no strategy 'vot'. There are: council-k, "),
    ({"strategy": "x" * 10_000}, "strategy", "There is no strategy 'xxx"),
    ({"rounds": 0}, "rounds", "whole number from 1 to"),
    ({"rounds": 99}, "rounds", "whole number from 1 to"),
]


@pytest.mark.parametrize(("fields", "param", "sentence"), BAD, ids=lambda value: str(value)[:40])
async def test_definitions_that_will_not_do(
    replica: NamedCouncils, fields: dict[str, Any], param: str, sentence: str
) -> None:
    """Each is refused by its field, and nothing is stored."""
    with pytest.raises(InvalidRequest) as caught:
        await replica.put(ROOT, "thinkers", replace(PAIR, **fields))
    assert caught.value.param == param
    assert sentence in caught.value.message
    assert len(caught.value.message) < 400
    assert await replica.all() == []


async def test_the_log_tells_who_changed_what(replica: NamedCouncils, database: Database, clock: FakeClock) -> None:
    """Before and after; what changes nothing is not logged, and keeps its time."""
    made = await replica.put(ROOT, "thinkers", PAIR)
    clock.advance(timedelta(hours=1))
    assert await replica.put(someone("ben"), "thinkers", PAIR) == made
    changed = await replica.put(ROOT, "thinkers", replace(PAIR, chair="large", rounds=2))
    assert (changed.created_at, changed.updated_at) == (made.created_at, clock.now())
    clock.advance(timedelta(hours=1))
    await replica.remove(ROOT, "thinkers")
    with pytest.raises(NotFound):
        await replica.remove(ROOT, "thinkers")
    async with database.transaction(everybody=True) as session:
        log = (await session.scalars(select(AuditEntry).order_by(AuditEntry.at))).all()
    first = {"members": ["small", "large"], "strategy": "vote", "chair": None, "rounds": 1}
    second = first | {"chair": "large", "rounds": 2}
    assert {(entry.actor_name, entry.actor_id, entry.subject) for entry in log} == {
        ("root", ROOT.id, "council thinkers")
    }
    assert [(entry.action, entry.before, entry.after) for entry in log] == [
        ("council.set", None, first),
        ("council.set", first, second),
        ("council.remove", second, None),
    ]


async def test_admins_who_define_at_once_take_turns(
    replica: NamedCouncils, other: NamedCouncils, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All succeed on one name, and no two share the last place that there is."""
    rounds = [replace(PAIR, members=(f"m{number}",)) for number in range(8)]
    await asyncio.gather(*((replica, other)[number % 2].put(ROOT, "one", each) for number, each in enumerate(rounds)))
    assert len(await replica.all()) == 1
    assert COUNCILS_MAX > 3
    monkeypatch.setattr(named_module, "COUNCILS_MAX", 3)
    ends = await asyncio.gather(
        *((replica, other)[number % 2].put(ROOT, f"n{number}", PAIR) for number in range(6)), return_exceptions=True
    )
    assert sum(isinstance(end, Conflict) for end in ends) == 4
    assert len(await replica.all()) == 3
    await replica.put(ROOT, "one", replace(PAIR, members=(str(uuid4()),)))
