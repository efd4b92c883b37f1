"""Shares of engines and of energy: the walk in SQL against a reference that looks at every millisecond."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from server.db.session import Database
from tests.clocks import BEGINNING
from tests.usage.parts import MS, request, sample, use

ANN, BOB = uuid4(), uuid4()
HOUR = timedelta(hours=1)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The test's database."""
    database = Database(database_url, connections_max=2)
    yield database
    await database.close()


class Share(NamedTuple):
    """What the function tells of a request."""

    run_ms: int
    gpu_us: int
    energy_mj: int | None


async def shares(database: Database, *, since: datetime = BEGINNING, of: UUID | None = None) -> dict[UUID, Share]:
    """Of the requests of a day, of somebody or of everybody."""
    async with database.transaction(of=of, everybody=of is None) as session:
        rows = await session.execute(
            text("SELECT request_id, run_ms, gpu_us, energy_mj FROM usage_shares(:since, :until)"),
            {"since": since, "until": since + 24 * HOUR},
        )
        return {row.request_id: Share(*row[1:]) for row in rows}


async def test_alone_a_request_has_the_engine_to_itself(database: Database) -> None:
    """From the slot to the end: waiting and pauses are not run time, and without devices nobody knows of energy."""
    row = request(BEGINNING, of=ANN, queue_ms=500, total_ms=4_500, paused_ms=1_000)
    await use(database, row)
    assert await shares(database) == {row["request_id"]: Share(3_000, 3_000_000, None)}


async def test_two_at_a_time_have_half_each(database: Database) -> None:
    """On one engine they divide each moment; on another engine nobody is in their way."""
    first = request(BEGINNING, of=ANN, run_ms=2_000)
    second = request(BEGINNING + 1_000 * MS, of=BOB, run_ms=2_000)
    elsewhere = request(BEGINNING, of=BOB, run_ms=3_000, engine="f")
    await use(database, first, second, elsewhere)
    found = await shares(database)
    assert [found[row["request_id"]].gpu_us for row in (first, second, elsewhere)] == [1_500_000, 1_500_000, 3_000_000]


async def test_energy_goes_to_those_who_ran(database: Database) -> None:
    """A period's energy is divided by run time in it; a period in which nothing ran is nobody's."""
    first = request(BEGINNING, of=ANN, run_ms=10_000)
    second = request(BEGINNING + 5_000 * MS, of=BOB, run_ms=30_000, engine="f")
    await use(database, first, second)
    await sample(database, "gpu", BEGINNING, [{"energy_mj": each} for each in (7_000, 1_000, 9_999)])
    found = await shares(database)
    # 10 s and 25 s in the first period; 5 s of the second one's in the next; nothing in the last.
    assert found[first["request_id"]].energy_mj == 2_000
    assert found[second["request_id"]].energy_mj == 5_000 + 1_000


async def test_power_stands_in_for_energy_that_a_device_does_not_count(database: Database) -> None:
    """Milliwatts times the period; all devices count, and the length of a period is the distance to the next one."""
    row = request(BEGINNING + 60_000 * MS, of=ANN, run_ms=1_000)
    await use(database, row)
    await sample(database, "amd", BEGINNING, [{"power_mw": 100}] * 3, period_s=60)
    await sample(database, "cpu", BEGINNING + 60_000 * MS, [{"energy_mj": 5}])
    await sample(database, "npu", BEGINNING, [{}] * 3, period_s=60)
    assert (await shares(database))[row["request_id"]].energy_mj == 6_000 + 5


async def test_where_no_device_told_energy_is_unknown(database: Database) -> None:
    """Not zero: neither before the first sample, nor where devices tell neither energy nor power."""
    early, late = request(BEGINNING, of=ANN), request(BEGINNING + 10 * HOUR, of=ANN)
    await use(database, early, late)
    await sample(database, "gpu", BEGINNING + HOUR, [{"energy_mj": 5}] * 2)
    await sample(database, "npu", BEGINNING, [{}] * 2)
    assert {share.energy_mj for share in (await shares(database)).values()} == {None}


async def test_one_who_never_ran_has_nothing(database: Database) -> None:
    """Neither one that left while it waited, nor one whose numbers make no sense; nothing breaks."""
    odd = [
        {"queue_ms": 5, "total_ms": 5},
        {"queue_ms": 9, "total_ms": 5},
        {"total_ms": 5, "paused_ms": 9},
        {"total_ms": -(1 << 63) + 1, "queue_ms": -5, "paused_ms": -5},
        {"total_ms": 100, "paused_ms": (1 << 63) - 1},
    ]
    await use(database, *(request(BEGINNING, of=ANN, **fields) for fields in odd))
    await sample(database, "gpu", BEGINNING, [{"energy_mj": 5}] * 2)
    assert list((await shares(database)).values()) == [Share(0, 0, None)] * len(odd)


async def test_of_a_request_without_end_six_hours_count(database: Database) -> None:
    """A server that was asleep may write any number."""
    row = request(BEGINNING, of=ANN, total_ms=(1 << 63) - 1)
    await use(database, row)
    assert (await shares(database))[row["request_id"]] == Share(6 * 3_600_000, 6 * 3_600_000_000, None)


async def test_what_began_before_or_after_has_its_share_all_the_same(database: Database) -> None:
    """Neighbours of other days divide the engine with those of this one, and are not told of."""
    mine = request(BEGINNING, of=ANN, run_ms=2_000)
    before = request(BEGINNING - 500 * MS, of=BOB, run_ms=1_500)
    after = request(BEGINNING + 24 * HOUR, of=BOB, run_ms=2_000)
    last = request(BEGINNING + 24 * HOUR - 1_000 * MS, of=ANN, run_ms=2_000)
    await use(database, mine, before, after, last)
    found = await shares(database)
    assert {row: share.gpu_us for row, share in found.items()} == {
        mine["request_id"]: 1_500_000,
        last["request_id"]: 1_500_000,
    }


async def test_a_person_is_told_of_their_own_alone(database: Database) -> None:
    """Others count in the shares, and are not there; without anybody named nothing is."""
    mine, theirs = request(BEGINNING, of=ANN), request(BEGINNING, of=BOB)
    await use(database, mine, theirs)
    assert await shares(database, of=ANN) == {mine["request_id"]: Share(1_000, 500_000, None)}
    assert await shares(database, of=uuid4()) == {}
    assert len(await shares(database)) == 2
    async with database.transaction() as session:
        rows = await session.execute(
            text("SELECT * FROM usage_shares(:since, :until)"), {"since": BEGINNING, "until": BEGINNING + HOUR}
        )
        assert rows.all() == []


# In ticks, of which a period has twenty.
TICK_MS, PERIOD = 50, 20
TICKS = st.integers(0, 40)
REQUESTS = st.lists(
    st.fixed_dictionaries(
        {"begins": TICKS, "engine": st.sampled_from("ef"), "queue": TICKS, "total": TICKS, "paused": TICKS}
    ),
    min_size=1,
    max_size=8,
)
# One period alone would have no other that tells its length.
READINGS: st.SearchStrategy[list[int | None]] = st.one_of(
    st.just([]), st.lists(st.one_of(st.none(), st.integers(0, 10_000)), min_size=2, max_size=5)
)


def reference(requests: list[dict[str, Any]], readings: list[int | None]) -> list[tuple[float, float | None]]:
    """Ticks of the engine and millijoules of each, looked at tick by tick."""
    spans = [(each["begins"] + each["queue"], each["begins"] + each["total"]) for each in requests]
    weights = [
        max(0, ends - begins - each["paused"]) / (ends - begins) if ends > begins else 0.0
        for (begins, ends), each in zip(spans, requests, strict=True)
    ]
    there = [
        [n for n, (begins, ends) in enumerate(spans) if begins <= tick < ends and weights[n]] for tick in range(100)
    ]
    gpu = [0.0] * len(requests)
    energy_mj: list[float | None] = [None] * len(requests)
    for running in there:
        for n in running:
            load = sum(weights[other] for other in running if requests[other]["engine"] == requests[n]["engine"])
            gpu[n] += weights[n] / max(load, 1)
    for number, reading in enumerate(readings):
        period = there[PERIOD * number : PERIOD * (number + 1)]
        work = sum(weights[n] for running in period for n in running)
        for n in {n for running in period for n in running if reading is not None}:
            run = weights[n] * sum(n in running for running in period)
            energy_mj[n] = (energy_mj[n] or 0) + (reading or 0) * run / work
    return list(zip(gpu, energy_mj, strict=True))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=REQUESTS, readings=READINGS)
async def test_the_walk_agrees_with_the_reference(
    database: Database, requests: list[dict[str, Any]], readings: list[int | None]
) -> None:
    """Whatever overlaps what, on one engine or two, with pauses, in periods that tell or do not."""
    async with database.transaction(everybody=True) as session:
        for table in ("usage", "hardware_samples", "hardware_devices"):
            await session.execute(text(f"DELETE FROM {table}"))  # noqa: S608 (names of ours)
    rows = [
        request(
            BEGINNING + each["begins"] * TICK_MS * MS,
            of=ANN,
            engine=each["engine"],
            **{f"{name}_ms": each[name] * TICK_MS for name in ("queue", "total", "paused")},
        )
        for each in requests
    ]
    await use(database, *rows)
    if readings:
        await sample(database, "gpu", BEGINNING, [{"energy_mj": each} for each in readings], period_s=1)
    found = await shares(database)
    for row, (gpu, energy_mj) in zip(rows, reference(requests, readings), strict=True):
        share = found[row["request_id"]]
        # Weights are whole millionths.
        assert share.gpu_us == pytest.approx(1_000 * TICK_MS * gpu, abs=10)
        assert share.energy_mj == (None if energy_mj is None else pytest.approx(energy_mj, abs=2))
