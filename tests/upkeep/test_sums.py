"""Old requests become sums of a day, and every report says what it said before."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from server.clock import uuid7
from server.db.models.retention import NOBODY
from server.db.session import Database
from server.messages import Principal
from server.upkeep.hours import roll_up
from server.upkeep.jobs import Turn
from server.upkeep.months import Month
from server.upkeep.settling import DAY, midnight
from server.upkeep.summing import sum_usage
from server.usage.prices import Amounts, Prices
from server.usage.reports import Reports
from tests.migrating import alembic
from tests.upkeep.conftest import Kept, RunJob, StillClock, rows
from tests.upkeep.killed import ROLLING
from tests.usage.parts import MS, request, sample, somebody, use

KEEP_DAYS = 400
SUMMED = ("user", "key", "model", "council", "engine", "placement")


class Room:
    """Requests of some people, of a week, and the reports that are made of them."""

    def __init__(self, database: Database, engine: AsyncEngine, clock: StillClock, run_job: RunJob) -> None:
        self.database = database
        self.engine = engine
        self.clock = clock
        self.run_job = run_job
        self.start = midnight(clock.time) - 30 * DAY
        self.ann, self.bob = somebody("ann"), somebody("bob")

    async def report(
        self, by: Sequence[str], *, of: Principal | None = None, zone: str = "UTC"
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The groups and their total, about the weeks around the start."""
        reports = Reports(self.database, self.clock)
        first, last = (f"{self.start + days * DAY:%Y-%m-%d}" for days in (-10, 20))
        question = reports.question(",".join(by), first=first, last=last, zone=zone)
        found = await reports.read(of or self.ann, question, everybody=of is None)
        return found.rows, found.total

    async def reports(self) -> list[object]:
        """By everything that sums can tell, of everybody and of one."""
        return [
            *[await self.report(("day", *SUMMED), of=of) for of in (None, self.ann)],
            *[await self.report(by) for by in (("month", "council"), ())],
        ]

    async def sum(self, days_later: int, keep_days: int = KEEP_DAYS, *, is_dry: bool = False) -> Kept:
        """The job, so many days later."""
        self.clock.time = self.start + days_later * DAY + timedelta(hours=3)

        async def usage(turn: Turn) -> None:
            await sum_usage(turn, keep_days)

        told = await self.run_job(usage, is_dry=is_dry)
        assert [(result.outcome, result.note) for result in told.results] == [("done", "")]
        return told

    async def roll(self, days_later: int, keep_days: int = 90, keep_hours_days: int = 0) -> Kept:
        """The job that makes hours of samples, so many days later."""
        self.clock.time = self.start + days_later * DAY + timedelta(hours=3)

        async def hardware(turn: Turn) -> None:
            await roll_up(turn, keep_days, keep_hours_days)

        told = await self.run_job(hardware)
        assert [(result.outcome, result.note) for result in told.results] == [("done", "")]
        return told

    async def count(self, table: str) -> int:
        """Its rows."""
        return int(str((await rows(self.engine, f"SELECT count(*) FROM {table}"))[0][0]))  # noqa: S608 (names of ours)


@pytest.fixture
async def room(database_url: str, engine: AsyncEngine, clock: StillClock, run_job: RunJob) -> AsyncIterator[Room]:
    """With a week of requests, prices that changed in it, councils, pauses, a cloud, and a device."""
    database = Database(database_url, connections_max=2)
    room = Room(database, engine, clock, run_job)
    await fill(room)
    yield room
    await database.close()


async def fill(room: Room) -> None:
    """Whatever a report tells apart."""
    start, run, keys = room.start, uuid4(), (None, uuid4())
    await use(room.database, *_week(room, run, keys))
    async with room.database.transaction(of=room.ann.id) as session:
        await session.execute(
            text(
                "INSERT INTO council_runs VALUES (:id, :who, 'duo', 'duo', 'open', NULL, 2, '', 'worth', '{}', '[]',"
                " NULL, NULL, NULL, NULL, NULL, 'completed', :at, 1, NULL)"
            ),
            {"id": run, "who": room.ann.id, "at": start},
        )
    await sample(room.database, "gpu", start, [{"energy_mj": 700 + each} for each in range(120)], period_s=3600)
    await sample(room.database, "cpu", start, [{"power_mw": 90}] * 120, period_s=3600)
    prices = Prices(room.database, room.clock)
    dear = Amounts(
        input_per_million=Decimal("0.1"),
        output_per_million=Decimal("0.333333333"),
        per_gpu_second=Decimal("0.0002"),
        per_kwh=Decimal("0.31"),
    )
    cheap = Amounts(
        input_per_million=Decimal(1), output_per_million=Decimal(2), per_gpu_second=None, per_kwh=Decimal("0.07")
    )
    # The price of m changes at noon of the second day; n has none before the third.
    await prices.put(room.ann, "m", dear, start - DAY)
    await prices.put(room.ann, "m", cheap, start + 1.5 * DAY)
    await prices.put(room.ann, "*", dear, start + 3 * DAY)


def _week(room: Room, run: UUID, keys: tuple[UUID | None, UUID]) -> list[dict[str, Any]]:
    made = []
    for number in range(160):
        at = room.start + number * timedelta(minutes=57, seconds=13)
        fields: dict[str, Any] = {
            "model": "mn"[number % 2],
            "engine": "ef"[number // 3 % 2],
            "key_id": keys[number // 2 % 2],
            "council_id": run if number % 5 == 0 else uuid4() if number % 11 == 0 else None,
            "outcome": ("completed", "cancelled", "failed")[number % 3],
            "queue_ms": 7 * number,
            "paused_ms": 100 * (number % 4),
            "output_tokens": number,
        }
        if number % 13 == 0:
            fields |= {"placement": "cloud", "cost_micros": 1_000 * number}
        who = (room.ann, room.bob)[number // 4 % 2]
        made.append({"placement": "local", "cost_micros": None} | request(at, of=who.id, run_ms=9_000_000, **fields))
    return made


async def test_every_report_says_the_same_before_and_after(room: Room) -> None:
    """When samples have become hours, when requests have become sums, and in the midst of it."""
    before = await room.reports()
    by_request = await room.report(("request",))
    assert {row["energy_mj"] is None for row in by_request[0]} == {True, False}
    await room.roll(days_later=94)
    assert 0 < await room.count("hardware_hours") < 2 * 120
    assert await room.reports() == before
    # Each request is still told of, with its share of energy that no sample tells any more.
    assert await room.report(("request",)) == by_request
    await room.roll(days_later=200)
    assert await room.count("hardware_samples") == 0
    assert await room.report(("request",)) == by_request
    for days in (KEEP_DAYS + 3, KEEP_DAYS + 3, KEEP_DAYS + 30):
        await room.sum(days_later=days)
        assert await room.reports() == before
    assert await room.count("usage") == 0
    assert await room.count("usage_days") < 160


async def test_sums_do_without_the_other_job(room: Room) -> None:
    """Also where requests go before samples do."""
    before = await room.reports()
    await room.sum(days_later=20, keep_days=17)
    assert 0 < await room.count("usage") < 160
    assert await room.reports() == before


async def test_in_another_zone_sums_count_on_their_own_day(room: Room) -> None:
    """Nothing is left out and nothing counts twice, whatever the zone; days of sums are those of UTC."""
    everything = (await room.report(()))[1]
    by_day = {row["day"]: row["requests"] for row in (await room.report(("day",)))[0]}
    await room.sum(days_later=KEEP_DAYS + 3)
    for zone in ("Pacific/Kiritimati", "America/New_York", "Asia/Kathmandu"):
        assert (await room.report((), zone=zone))[1] == everything
        rows_ = (await room.report(("day",), zone=zone))[0]
        assert sum(row["requests"] for row in rows_) == everything["requests"]
        first = min(by_day)
        assert {row["day"]: row["requests"] for row in rows_}[first] == by_day[first]


async def test_sums_tell_no_single_request(room: Room) -> None:
    """By request there is one group of those that nobody knows one by one any more."""
    await room.sum(days_later=KEEP_DAYS + 30)
    ((only,), total) = await room.report(("request",))
    assert only["request_id"] is None
    assert only["requests"] == total["requests"] == 160


async def test_months_of_which_nothing_is_left_are_dropped(room: Room) -> None:
    """The disk gets their room back; others stay."""
    month = Month.of(room.start)
    query = "SELECT count(*) FROM pg_inherits WHERE inhparent = CAST(:t AS regclass)"
    before = {table: (await rows(room.engine, query, t=table))[0][0] for table in ("usage", "hardware_samples")}
    await room.roll(days_later=190)
    told = await room.sum(days_later=KEEP_DAYS + 70)
    assert any(line.startswith("dropped usage_") for line in told.lines)
    after = {table: (await rows(room.engine, query, t=table))[0][0] for table in before}
    assert all(int(str(after[table])) < int(str(before[table])) for table in before)
    assert month.begins < room.clock.time
    # What comes late finds its place all the same.
    await use(room.database, request(room.start, of=room.ann.id))
    assert (await room.report(()))[1]["requests"] == 161


async def test_a_dry_run_changes_nothing(room: Room) -> None:
    """It says what would be done."""
    told = await room.sum(days_later=KEEP_DAYS + 3, is_dry=True)
    assert f"would add up the requests of {room.start:%Y-%m-%d}" in told.lines
    assert (await room.count("usage"), await room.count("usage_days")) == (160, 0)


async def test_kept_for_ever(room: Room) -> None:
    """Where the settings say so, nothing is summed, and no sample becomes an hour."""
    await room.sum(days_later=4_000, keep_days=0)
    await room.roll(days_later=4_000, keep_days=0)
    assert (await room.count("usage"), await room.count("hardware_samples")) == (160, 240)


async def test_usage_of_nobody_becomes_sums_soon(room: Room) -> None:
    """A day later, when the shares of those beside it are settled; what the others are told stays."""
    async with room.engine.begin() as connection:
        values = {"bob": room.bob.id, "nobody": NOBODY}
        await connection.execute(text("UPDATE usage SET user_id = :nobody, key_id = NULL WHERE user_id = :bob"), values)
    before = await room.reports()
    await room.sum(days_later=8)
    left = await rows(room.engine, "SELECT DISTINCT user_id FROM usage")
    assert left == [(room.ann.id,)]
    assert await room.reports() == before


async def test_ids_of_a_clock_that_was_off_are_not_lost(room: Room) -> None:
    """No report finds such a request as long as it is a row; as a sum it counts."""
    odd = request(room.start, of=room.ann.id, request_id=uuid7(room.start + 50 * DAY))
    await use(room.database, odd)
    await room.sum(days_later=KEEP_DAYS + 30)
    assert await room.count("usage") == 0
    assert (await room.report(()))[1]["requests"] == 161


async def test_numbers_that_no_column_holds_break_nothing(room: Room) -> None:
    """What an engine made up is cut off where a sum would be too large; also when more comes to it."""
    huge: dict[str, Any] = {"input_tokens": (1 << 63) - 1, "output_tokens": (1 << 63) - 1, "model": "huge"}
    for _ in range(2):
        await use(room.database, *(request(room.start + each * MS, of=room.ann.id, **huge) for each in range(2)))
        await room.sum(days_later=KEEP_DAYS + 30)
    found = await rows(room.engine, "SELECT requests, input_tokens FROM usage_days WHERE model = 'huge'")
    assert found == [(4, (1 << 63) - 1)]


async def test_the_app_reads_sums_as_it_reads_usage(room: Room) -> None:
    """One's own or everybody's, in a transaction that says so; and it cannot write any."""
    await room.sum(days_later=KEEP_DAYS + 30)
    seen = []
    for scope in ({"of": room.ann.id}, {"everybody": True}, {}, {"of": uuid4()}):
        async with room.database.transaction(**scope) as session:
            seen.append(await session.scalar(text("SELECT sum(requests) FROM usage_days")))
    assert seen == [80, 160, None, None]
    for statement in ("UPDATE usage_days SET requests = 1", "DELETE FROM usage_days"):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with room.database.transaction(everybody=True) as session:
                await session.execute(text(statement))


async def test_hours_are_what_the_samples_were(room: Room) -> None:
    """Averages, largest values and sums; and samples of an hour that come late are averaged into it."""
    at = datetime(2020, 5, 17, 13, 0, tzinfo=UTC)
    full: dict[str, int | None] = {"used_mib": 10, "used_mib_max": 50, "energy_mj": 5, "temperature_c": 40}
    readings: list[dict[str, int | None]] = [full, {"used_mib": 20, "xid": 31}]
    await sample(room.database, "npu", at, readings)
    query = (
        "SELECT periods, used_mib, used_mib_max, energy_mj, temperature_c, xid, power_mw FROM hardware_hours"
        " JOIN hardware_devices ON hardware_devices.id = device_id WHERE uuid = 'npu' AND at = :at"
    )
    await room.roll(days_later=1)
    assert await rows(room.engine, query, at=at) == [(2, 15, 50, 5, 40, 31, None)]
    ((device,),) = await rows(room.engine, "SELECT id FROM hardware_devices WHERE uuid = 'npu'")
    async with room.engine.begin() as connection:
        late = "INSERT INTO hardware_samples (at, device_id, used_mib, energy_mj, power_mw) VALUES (:at, :id, 45, 7, 9)"
        await connection.execute(text(late), {"at": at + timedelta(minutes=9), "id": device})
    await room.roll(days_later=1)
    assert await rows(room.engine, query, at=at) == [(3, 25, 50, 12, 40, 31, 9)]
    await room.roll(days_later=1, keep_hours_days=365)
    assert await rows(room.engine, query, at=at) == []


@pytest.mark.parametrize("step", ROLLING)
async def test_killed_at_any_step_nothing_is_lost_or_counted_twice(
    room: Room, database_url: str, tmp_path: Path, step: str
) -> None:
    """A process that ends by SIGKILL in the midst of it: reports say the same, and the next run does the rest."""
    before = await room.reports()
    program = [sys.executable, "-m", "tests.upkeep.killed", database_url, str(tmp_path), str(KEEP_DAYS + 5), step]
    process = await asyncio.create_subprocess_exec(*program)
    assert await process.wait() == -signal.SIGKILL
    assert await room.reports() == before
    left = await room.count("usage")
    ((ended,),) = await rows(room.engine, "SELECT ended_at FROM upkeep_runs")
    assert ended is None
    await room.roll(days_later=KEEP_DAYS + 50)
    await room.sum(days_later=KEEP_DAYS + 50)
    assert await room.reports() == before
    assert (await room.count("usage"), await room.count("hardware_samples")) == (0, 0)
    assert left > 0


async def test_the_schema_steps_back_as_long_as_nothing_is_lost(room: Room, database_url: str) -> None:
    """Settled shares are found anew, where what they follow from is there; sums alone are not given up."""
    before = await room.reports()
    await room.sum(days_later=20, keep_days=0)
    async with room.engine.begin() as connection:
        await connection.execute(text("UPDATE usage SET gpu_us = NULL WHERE model = 'm'"))
    await alembic(room.engine, lambda config: command.downgrade(config, "0013"))
    await alembic(room.engine, lambda config: command.upgrade(config, "head"))
    room.database = fresh = Database(database_url, connections_max=2)
    assert await room.reports() == before
    await room.sum(days_later=KEEP_DAYS + 30)
    with pytest.raises(RuntimeError, match="kept by day"):
        await alembic(room.engine, lambda config: command.downgrade(config, "0013"))
    assert await room.reports() == before
    await fresh.close()
