"""What past usage says: counted once a reading, faded, by the hour of the week; the last minutes as they happen."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert

from server.allocator.forecast import (
    HISTORY_MS_MAX,
    HOUR_MS,
    PRIOR_PER_HOUR,
    WEEK_MS,
    Cell,
    hour_of_week,
    weight_of_age,
)
from server.clock import uuid7
from server.db.models import Usage
from server.db.session import Database
from server.errors import Unavailable
from server.usage.history import FRESH_MS, READ_EVERY_MS, REQUESTS_WITHIN_MS, REST_FACTOR, Expectations, history_of
from tests.clocks import BEGINNING, FakeClock

ANN, BOB = uuid4(), uuid4()
# The clock begins on a Monday at noon.
NOON_MS = int(BEGINNING.timestamp() * 1000)
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The test's database."""
    database = Database(database_url, connections_max=3)
    yield database
    await database.close()


async def use(database: Database, user: UUID, model: str, times: Iterable[datetime], role: str | None = None) -> None:
    """Requests that ended, as the writer writes them."""
    rows = [
        {
            "request_id": uuid7(at),
            "user_id": user,
            "surface": "chat.completions",
            "model": model,
            "engine": "e",
            "input_tokens": 1,
            "output_tokens": 1,
            "queue_ms": 0,
            "total_ms": 1,
            "outcome": "completed",
            "role": role,
            "started_at": at,
        }
        for at in times
    ]
    async with database.transaction(everybody=True) as session:
        await session.execute(insert(Usage), rows)


async def test_requests_are_counted_by_hour_of_the_week_and_fade(database: Database) -> None:
    """Two Mondays at noon are one cell; an hour later is another; each counts by its age."""
    await use(database, ANN, "m", [BEGINNING - WEEK, BEGINNING - WEEK + timedelta(minutes=59), BEGINNING - 2 * WEEK])
    await use(database, ANN, "m", [BEGINNING - WEEK + HOUR])
    await use(database, BOB, "m", [BEGINNING - DAY])
    history = await history_of(database, NOON_MS)
    assert history.at_ms == NOON_MS
    assert history.since_ms == NOON_MS - 2 * WEEK_MS
    noon = hour_of_week(NOON_MS)
    found = {(cell.user, cell.model, cell.hour): cell.requests for cell in history.cells}
    one, two = weight_of_age(WEEK_MS), weight_of_age(2 * WEEK_MS)
    assert found == {
        (str(ANN), "m", noon): pytest.approx(one + weight_of_age(WEEK_MS - 59 * 60_000) + two),
        (str(ANN), "m", noon + 1): pytest.approx(weight_of_age(WEEK_MS - HOUR_MS)),
        (str(BOB), "m", hour_of_week(NOON_MS - 24 * HOUR_MS)): pytest.approx(weight_of_age(24 * HOUR_MS)),
    }


async def test_what_is_too_old_is_not_read(database: Database) -> None:
    """Twelve weeks are read; what is of the future (a clock went back) counts whole, and never more."""
    oldest = BEGINNING - timedelta(milliseconds=HISTORY_MS_MAX)
    await use(database, ANN, "m", [oldest - timedelta(milliseconds=2), oldest, BEGINNING + HOUR])
    history = await history_of(database, NOON_MS)
    assert sorted(cell.requests for cell in history.cells) == pytest.approx([weight_of_age(HISTORY_MS_MAX), 1.0])
    assert history.since_ms == NOON_MS - HISTORY_MS_MAX


async def test_of_a_council_only_the_leader_counts(database: Database) -> None:
    """Members are chosen by what is in memory, so they say nothing of what is wanted."""
    await use(database, ANN, "led", [BEGINNING - DAY], role="leader")
    for role in ("member", "rank", "judge", "debate", "chair"):
        await use(database, ANN, "followed", [BEGINNING - DAY], role=role)
    assert [cell.model for cell in (await history_of(database, NOON_MS)).cells] == ["led"]


async def test_without_usage_the_prior_is_all_there_is(database: Database) -> None:
    """A new box expects little of anybody, and knows no model."""
    assert (await history_of(database, NOON_MS)).cells == ()
    expectations = Expectations(database, FakeClock())
    await expectations.read()
    assert expectations.models() == {}
    assert expectations.requests_of_others(ANN) == pytest.approx(PRIOR_PER_HOUR * REQUESTS_WITHIN_MS / HOUR_MS)


async def test_a_habit_is_expected_of_its_person(database: Database) -> None:
    """Ann asks every day at noon: others are told of her, she herself is not; the model is likely at noon only."""
    clock = FakeClock()
    minutes = [timedelta(minutes=5 * each) for each in range(6)]
    await use(database, ANN, "m", [BEGINNING - day * DAY + each for day in range(1, 29) for each in minutes])
    expectations = Expectations(database, clock)
    assert expectations.models() == {}
    await expectations.read()
    assert expectations.requests_of_others(BOB) > 0.2 > 20 * expectations.requests_of_others(ANN)
    at_noon = expectations.models()["m"]
    clock.advance(8 * HOUR)
    assert at_noon > 0.4 > 10 * expectations.models()["m"]


async def test_the_last_minutes_count_at_once(database: Database) -> None:
    """What this replica sees needs no reading, and an answer is at most a second old."""
    clock = FakeClock()
    expectations = Expectations(database, clock)
    assert expectations.models() == {}
    expectations.saw(str(ANN), "m")
    clock.advance(timedelta(milliseconds=FRESH_MS))
    assert expectations.models()["m"] > 0.2
    assert expectations.requests_of_others(BOB) > 10 * expectations.requests_of_others(ANN)


async def test_a_postgres_that_is_away_ends_nothing(database_url: str) -> None:
    """The reading goes on; what is known stays true."""
    clock = FakeClock()
    away = Database(database_url.replace("wirthforge_test", "wirthforge_gone"), connections_max=1)
    expectations = Expectations(away, clock)
    expectations.saw(str(ANN), "m")
    with pytest.raises(Unavailable):
        await expectations.read()
    running = asyncio.ensure_future(expectations.run())
    while not clock._sleepers:
        await _turn()
    assert not running.done()
    assert expectations.models()["m"] > 0.2
    running.cancel()
    await asyncio.wait([running])
    await away.close()


async def test_reading_takes_a_hundredth_of_the_time_at_the_most(database: Database) -> None:
    """It is read anew every five minutes; after one that took long, later."""
    clock = FakeClock()

    class Slow(Expectations):
        took = timedelta(0)

        async def read(self) -> None:
            await super().read()
            clock.advance(self.took)

    expectations = Slow(database, clock)
    waits = []
    for expectations.took in (timedelta(0), timedelta(seconds=7)):
        running = asyncio.ensure_future(expectations.run())
        began = clock._passed + expectations.took
        while not (wakes := [wakes for wakes, turn in clock._sleepers if not turn.done()]):
            await _turn()
        waits.append((wakes[0] - began) // timedelta(milliseconds=1))
        running.cancel()
        await asyncio.wait([running])
        clock.advance(timedelta(hours=1))
    assert waits == [READ_EVERY_MS, 7_000 * REST_FACTOR]


async def test_a_cell_is_what_the_forecast_takes(database: Database) -> None:
    """Types are those of the struct, not the driver's."""
    await use(database, ANN, "m", [BEGINNING - DAY])
    (cell,) = (await history_of(database, NOON_MS)).cells
    assert isinstance(cell, Cell)
    assert [type(value) for value in (cell.user, cell.model, cell.hour, cell.requests)] == [str, str, int, float]


async def _turn() -> None:
    turn = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turn.set_result, None)
    await turn
