"""What was seen of contention: added up over replicas, kept while Postgres is away, and forgotten when told to."""

from math import exp, inf, log, nan

import pytest
from sqlalchemy import select

from server.council.contention import LEFT_MAX, LEFT_MIN, SIZE_MAX, Contentions, Observed, Seen
from server.db.models import AuditEntry
from server.db.session import Database
from server.errors import Unavailable
from tests.clocks import FakeClock
from tests.council_stores.parts import someone
from tests.usage.test_writer import no_database

ROOT = someone("root")


class House:
    """The hardware of the box."""

    name = "2 x GPU"


@pytest.fixture
def house() -> House:
    """It may change."""
    return House()


@pytest.fixture
def replica(database: Database, clock: FakeClock, house: House) -> Contentions:
    """As one replica sees it."""
    return Contentions(database, clock, hardware=lambda: house.name)


@pytest.fixture
def other(database: Database, clock: FakeClock, house: House) -> Contentions:
    """As another does."""
    return Contentions(database, clock, hardware=lambda: house.name)


def mean(seen: Seen) -> float:
    """The geometric one."""
    return exp(seen.log_sum / seen.count)


async def test_what_replicas_see_adds_up(replica: Contentions, other: Contentions) -> None:
    """In force at once where it was seen, everywhere after a step; boxes and sizes are apart."""
    for left in (0.5, 0.32):
        replica.observe("host", 2, left)
    assert mean(replica.of("host")[2]) == pytest.approx(0.4)
    other.observe("host", 2, 0.4)
    other.observe("host", 4, 0.25)
    other.observe("gpu", 2, 0.9)
    for each in (replica, other, replica, other):
        await each.step()
    for each in (replica, other):
        assert each.of("host").keys() == {2, 4}
        assert each.of("host")[2].count == 3
        assert mean(each.of("host")[2]) == pytest.approx(0.4)
        assert each.of("gpu")[2].count == 1
        assert each.of("nowhere") == {}
    rows = await replica.all()
    assert [(row.box, row.hardware, row.size, row.seen.count) for row in rows] == [
        *(("gpu", "2 x GPU", 2, 1), ("host", "2 x GPU", 2, 3), ("host", "2 x GPU", 4, 1)),
    ]


async def test_other_hardware_begins_anew(replica: Contentions, house: House) -> None:
    """And what was seen of the former is there when it comes back; until it is known what there is, all waits."""
    replica.observe("host", 2, 0.5)
    await replica.step()
    house.name = ""
    replica.observe("host", 3, 0.5)
    await replica.step()
    house.name = "1 x GPU"
    assert replica.of("host").keys() == {3}
    await replica.step()
    house.name = "2 x GPU"
    await replica.step()
    assert replica.of("host").keys() == {2}
    assert [(row.hardware, row.size) for row in await replica.all()] == [("1 x GPU", 3), ("2 x GPU", 2)]


async def test_what_makes_no_sense_is_not_seen(replica: Contentions) -> None:
    """No number, nothing left, no size; what is out of bounds counts as the bound."""
    for left in (nan, inf, -inf, 0.0, -0.5):
        replica.observe("host", 2, left)
    for size in (0, -1, SIZE_MAX + 1):
        replica.observe("host", size, 0.5)
    assert replica.of("host") == {}
    replica.observe("host", 2, 1e-300)
    replica.observe("host", 3, 1e300)
    assert replica.of("host") == {2: Seen(log(LEFT_MIN), 1), 3: Seen(log(LEFT_MAX), 1)}


async def test_postgres_away_loses_nothing(replica: Contentions, database_url: str, postgres_url: str) -> None:
    """What was seen before and meanwhile is added when it is back, once."""
    replica.observe("host", 2, 0.5)
    async with no_database(database_url, postgres_url):
        for _ in range(3):
            with pytest.raises(Unavailable):
                await replica.step()
            replica.observe("host", 2, 0.5)
    assert replica.of("host")[2].count == 4
    for _ in range(2):
        await replica.step()
    assert replica.of("host").keys() == {2}
    assert replica.of("host")[2].count == 4
    assert mean(replica.of("host")[2]) == pytest.approx(0.5)


async def test_a_reset_forgets_what_is_kept_and_what_waits(
    replica: Contentions, other: Contentions, database: Database
) -> None:
    """Of one box, or of all; and it is logged."""
    for box in ("host", "gpu"):
        replica.observe(box, 2, 0.5)
    await replica.step()
    await other.step()
    replica.observe("host", 2, 0.5)
    assert await replica.reset(ROOT, box="host") == 1
    assert await replica.reset(ROOT, box="no\0box") == 0
    assert (replica.of("host"), replica.of("gpu")[2].count) == ({}, 1)
    await other.step()
    assert (other.of("host"), other.of("gpu")[2].count) == ({}, 1)
    assert await replica.reset(ROOT) == 1
    assert await replica.all() == []
    async with database.transaction(everybody=True) as session:
        entries = (await session.scalars(select(AuditEntry).order_by(AuditEntry.id))).all()
    assert {(entry.subject, entry.action) for entry in entries} == {
        ("contention of host", "contention.reset"),
        ("contention", "contention.reset"),
    }


async def test_a_reset_while_a_step_is_on_its_way(replica: Contentions, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before it does not come back."""
    replica.observe("host", 2, 0.5)
    listed = replica.all

    async def slow() -> list[Observed]:
        found = await listed()
        await replica.reset(ROOT)
        return found

    monkeypatch.setattr(replica, "all", slow)
    await replica.step()
    assert replica.of("host") == {}
