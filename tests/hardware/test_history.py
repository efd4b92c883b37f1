"""The history: averages over periods, in a real Postgres, within the seed's hundred kilobytes an hour."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from server.clock import SystemClock
from server.db.models import HardwareSample
from server.db.session import Database, async_url
from server.errors import Unavailable
from server.hardware.devices import Device, Sample, Snapshot
from server.hardware.history import MINUTES_MAX, POINTS_MAX, History
from server.hardware.monitor import REFUSED_MAX, RETRY_MS, SAMPLE_EVERY_MS, Monitor
from server.hardware.periods import BYTES_PER_HOUR_MAX, MIB, PERIOD_S_MIN, ROW_BYTES, Periods, Row, period_s
from server.hardware.providers import Loaded
from server.upkeep.hours import roll_up
from server.upkeep.jobs import Job, run_jobs
from server.upkeep.owner import Owner
from tests.clocks import BEGINNING, FakeClock
from tests.hardware.parts import GIB, Made, gpu

NOWHERE = "postgresql://wirthforge@127.0.0.1:1/wirthforge"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The test's database."""
    database = Database(database_url, connections_max=3)
    yield database
    await database.close()


@pytest.fixture
def history(database: Database, clock: FakeClock) -> History:
    """The history in it."""
    return History(database, clock)


def snapshot(second: int, *devices: Device, **readings: object) -> Snapshot:
    """All devices at a moment, with the same readings."""
    at = BEGINNING + timedelta(seconds=second)
    samples = {one.uuid: replace(Sample(uuid=one.uuid, at=at), **readings) for one in devices}
    return Snapshot(at=at, devices=devices, samples=samples)


def row(device: Device, second: int, **measured: int | None) -> Row:
    """A row as full as one can be."""
    full = {
        "used_mib": 40_000, "used_mib_max": 50_000, "power_mw": 350_000, "energy_mj": 10_500_000,
        "utilisation_percent": 80, "temperature_c": 60, "throttled_percent": 10, "xid": 13,
    }  # fmt: skip
    return Row(device=device, at=BEGINNING + timedelta(seconds=second), **(full | measured))


def test_a_period_is_averaged() -> None:
    """Averages of what is known, the most memory, energy since the period before, part of the time throttled."""
    periods = Periods()
    one = gpu("a")
    read = [
        (0, 100, 10, 1_000, ("gpu_idle",)),
        (10, 300, 20, 4_000, ("sw_power_cap",)),
        (20, 200, None, 6_000, None),
        (30, 500, 90, 9_500, ()),
    ]
    rows = [
        periods.add(
            snapshot(second, one, used_bytes=used * MIB, utilisation_percent=busy, energy_mj=energy, throttle=throttle)
        )
        for second, used, busy, energy, throttle in read
    ]
    assert rows[:3] == [[], [], []]
    first = row(one, 0, used_mib=200, used_mib_max=300, utilisation_percent=15, energy_mj=5_000, throttled_percent=50)
    assert rows[3] == [replace(first, power_mw=None, temperature_c=None, xid=None)]
    (second,) = periods.add(snapshot(65, one))
    assert (second.at, second.energy_mj) == (BEGINNING + timedelta(seconds=30), 3_500)


def test_what_a_device_does_not_tell_is_null() -> None:
    """Nothing is made up; a counter that began anew or a number that no column holds is unknown."""
    periods = Periods()
    one = gpu("a")
    periods.add(snapshot(0, one, energy_mj=10**15, used_bytes=1 << 62, xids=(1 << 40,)))
    periods.add(snapshot(10, one, energy_mj=5))
    (only,) = periods.add(snapshot(30, one))
    assert [getattr(only, name) for name in Row.__struct_fields__[2:]] == [None] * 8


def test_a_device_without_samples_has_no_row() -> None:
    """Nor one that went; those that stay go on."""
    periods = Periods()
    a, b = gpu("a"), gpu("b")
    periods.add(snapshot(0, a, b))
    assert [one.device.uuid for one in periods.add(replace(snapshot(30, a, b), samples={}))] == ["a", "b"]
    assert periods.add(snapshot(60, a)) == []
    assert [one.device.uuid for one in periods.add(snapshot(90, a))] == ["a"]


@given(st.integers(0, 300))
def test_an_hour_never_has_more_rows_than_fit(devices: int) -> None:
    """Periods grow with the number of devices; few devices have the finest ones."""
    assert devices * 3600 / period_s(devices) * ROW_BYTES <= BYTES_PER_HOUR_MAX
    assert devices > 7 or period_s(devices) == PERIOD_S_MIN


@pytest.mark.parametrize("devices", [1, 7, 8, 64])
async def test_an_hour_takes_what_it_may(database: Database, history: History, devices: int) -> None:
    """Measured in Postgres: table and index grow by at most 100 kB, for one device as for sixty-four."""
    all_of_them = [gpu(f"GPU-{index}") for index in range(devices)]
    async with database.transaction(everybody=True) as session:
        before = await session.scalar(text("SELECT pg_total_relation_size('hardware_samples')"))
    hours = 4  # pages of 8 kB would hide what a row takes
    seconds = range(0, hours * 3600, period_s(devices))
    for second in seconds:
        await history.write([row(one, second) for one in all_of_them])
    async with database.transaction(everybody=True) as session:
        after = await session.scalar(text("SELECT pg_total_relation_size('hardware_samples')"))
        count = await session.scalar(select(func.count()).select_from(HardwareSample))
    assert count == devices * len(seconds)
    assert (after - before) / hours <= BYTES_PER_HOUR_MAX


async def test_what_was_written_is_read(history: History, clock: FakeClock) -> None:
    """In steps, oldest first, each device by its uuid; what is NULL is unknown."""
    a, b = gpu("a"), gpu("b")
    await history.write([row(a, 0), row(b, 0, power_mw=None, xid=None), row(a, 30, used_mib=20_000, power_mw=50_000)])
    clock.advance(timedelta(minutes=1))
    points = await history.read(10)
    assert [(point.uuid, point.used_bytes, point.power_mw) for point in points] == [
        ("a", 40_000 * MIB, 350_000),
        ("b", 40_000 * MIB, None),
        ("a", 20_000 * MIB, 50_000),
    ]
    assert (points[1].xid, points[0].xid, points[0].used_bytes_max) == (None, 13, 50_000 * MIB)
    clock.advance(timedelta(minutes=30))
    assert await history.read(10) == []
    (day, _) = await history.read(60 * 24)  # one step of six minutes
    assert (day.used_bytes, day.power_mw, day.energy_mj) == (30_000 * MIB, 200_000, 21_000_000)


async def test_a_long_history_has_bounded_points(history: History, clock: FakeClock) -> None:
    """However long: at most 240 steps, and one that is cut at the beginning."""
    await history.write([row(gpu("a"), 30 * number) for number in range(2 * 120)])
    clock.advance(timedelta(hours=2))
    assert len(await history.read(121)) <= POINTS_MAX + 1
    assert len(await history.read(60 * 24 * 90)) == 1


async def test_replicas_on_one_host_write_a_row_once(database: Database, history: History, clock: FakeClock) -> None:
    """The first wins; neither fails."""
    other = History(database, clock)
    await asyncio.gather(history.write([row(gpu("a"), 0)]), other.write([row(gpu("a"), 0)]))
    assert len(await history.read(10)) == 1


async def test_what_is_kept_by_the_hour_is_told_as_well(database_url: str, history: History, clock: FakeClock) -> None:
    """Upkeep makes hours of old samples; a long history begins with these."""
    await history.write([row(gpu("a"), 30 * number) for number in range(200)])
    clock.advance(timedelta(days=200))
    before = await history.read(MINUTES_MAX)
    run = [Job("hardware", "", partial(roll_up, keep_days=90, keep_hours_days=0))]
    assert [result.outcome async for result in run_jobs(Owner(database_url), run, clock, lambda *_: None)] == ["done"]
    assert await history.read(MINUTES_MAX) == before
    engine = create_async_engine(async_url(database_url))
    async with engine.begin() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM hardware_samples")) == 0
        assert await connection.scalar(text("SELECT count(*) FROM hardware_hours")) == 2
    await engine.dispose()


async def test_a_database_that_was_emptied_is_written_again(database: Database, history: History) -> None:
    """The numbers of devices that a writer remembers may be wrong; it learns them anew."""
    await history.write([row(gpu("a"), 0)])
    async with database.transaction(everybody=True) as session:
        await session.execute(text("DELETE FROM hardware_devices"))
    with pytest.raises(Exception, match="foreign key"):
        await history.write([row(gpu("a"), 30)])
    await history.write([row(gpu("a"), 30)])
    assert len(await history.read(10)) == 1


class Refusing(History):
    """A history that refuses, like Postgres a row that it cannot take, as often as it is told to."""

    refusals = 0

    async def write(self, rows: object) -> None:
        """Refuse, or write."""
        if self.refusals > 0:
            self.refusals -= 1
            raise IntegrityError("insert", {}, ValueError("no"))
        await super().write(rows)  # type: ignore[arg-type]


@pytest.mark.parametrize(("refusals", "is_lost"), [(REFUSED_MAX - 1, False), (REFUSED_MAX, True)])
async def test_rows_that_are_refused_do_not_stop_the_others(
    database: Database, clock: FakeClock, refusals: int, is_lost: bool
) -> None:
    """They are tried again, then dropped with a line in the log; the loop goes on."""
    history = Refusing(database, clock)
    history.refusals = refusals
    monitor = Monitor(Loaded((Made(),), {}), clock, history)
    with structlog.testing.capture_logs() as lines:
        running = asyncio.create_task(monitor.run())
        async with asyncio.timeout(30):
            while not await history.read(60):
                clock.advance(timedelta(milliseconds=SAMPLE_EVERY_MS))
                await SystemClock().sleep_ms(2)
        running.cancel()
        await asyncio.wait([running])
    monitor.close()
    assert [line["event"] for line in lines].count("hardware history is lost") == is_lost


class Away(History):
    """A history whose Postgres is away until it is told otherwise."""

    is_away = True

    async def write(self, rows: object) -> None:
        """Refuse, or write."""
        if self.is_away:
            await Database(NOWHERE).ping()
        await super().write(rows)  # type: ignore[arg-type]


async def test_rows_wait_for_a_postgres_that_is_away(database: Database, clock: FakeClock) -> None:
    """One line tells of it, looking goes on, and all is written when it is back."""
    history = Away(database, clock)
    with pytest.raises(Unavailable):
        await history.write([])
    made = Made(uuids=["a"])
    monitor = Monitor(Loaded((made,), {}), clock, history)
    with structlog.testing.capture_logs() as lines:
        running = asyncio.create_task(monitor.run())
        async with asyncio.timeout(30):
            while made.asked < 20:
                await SystemClock().sleep_ms(1)
                clock.advance(timedelta(milliseconds=max(SAMPLE_EVERY_MS, RETRY_MS)))
            history.is_away = False
            while not await history.read(60):
                clock.advance(timedelta(milliseconds=RETRY_MS))
                await SystemClock().sleep_ms(5)
        running.cancel()
        await asyncio.wait([running])
    monitor.close()
    assert [line["event"] for line in lines].count("hardware history waits") == 1
    points = await history.read(60)
    assert points[0].used_bytes == GIB
