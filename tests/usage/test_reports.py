"""Reports: added up by what is asked, in somebody's days, at the prices of then; one's own or everybody's."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from server.clock import SystemClock
from server.db.session import Database, async_url
from server.errors import InvalidRequest, TooMany, Unavailable
from server.usage import reports as module
from server.usage.days import days_of
from server.usage.prices import Amounts, Prices
from server.usage.reports import FIELDS, WAITING_MAX, Report, Reports, Value
from tests.clocks import BEGINNING, FakeClock
from tests.usage.parts import request, sample, somebody, use

ANN, BOB, ROOT = somebody("ann"), somebody("bob"), somebody("root", "admin")
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The test's database."""
    database = Database(database_url, connections_max=3)
    yield database
    await database.close()


@pytest.fixture
def clock() -> FakeClock:
    """Noon."""
    return FakeClock()


@pytest.fixture
def reports(database: Database, clock: FakeClock) -> Reports:
    """Makes reports."""
    return Reports(database, clock)


async def everything(reports: Reports, by: str, *, zone: str = "UTC", **days: str) -> Report:
    """A report of everybody, as the admin gets it."""
    question = reports.question(by, first=days.get("first"), last=days.get("last"), zone=zone)
    return await reports.read(ROOT, question, everybody=True)


def column(report: Report, *names: str) -> list[tuple[Value, ...]]:
    """Some columns of all rows."""
    return [tuple(row[name] for name in names) for row in report.rows]


async def test_requests_are_added_up_by_field(database: Database, reports: Reports) -> None:
    """Several fields make a group for each combination that there is, in their order; the total is all of them."""
    await use(
        database,
        request(BEGINNING - DAY, of=ANN.id, model="b", input_tokens=1, output_tokens=2),
        request(BEGINNING - DAY, of=BOB.id, model="a", input_tokens=3, output_tokens=4, run_ms=3_000),
        request(BEGINNING, of=ANN.id, model="a", input_tokens=5, output_tokens=6),
        request(BEGINNING + HOUR, of=ANN.id, model="a", input_tokens=7, output_tokens=8),
    )
    report = await everything(reports, "day,model")
    names = ("day", "model", "requests", "input_tokens", "output_tokens", "run_ms", "gpu_ms")
    assert column(report, *names) == [
        ((BEGINNING - DAY).date(), "a", 1, 3, 4, 3_000, 2_500),
        ((BEGINNING - DAY).date(), "b", 1, 1, 2, 1_000, 500),
        (BEGINNING.date(), "a", 2, 12, 14, 2_000, 2_000),
    ]
    assert report.total == {
        "requests": 4,
        "input_tokens": 16,
        "output_tokens": 20,
        "run_ms": 6_000,
        "gpu_ms": 5_000,
        "energy_mj": None,
        "cost": None,
        "unpriced_requests": 4,
        "unmetered_requests": 4,
    }


async def test_every_field_can_be_asked_for(database: Database, reports: Reports) -> None:
    """Alone, and all of them together; names stand beside ids, and what has no name has none."""
    council, key, gone = uuid4(), uuid4(), uuid4()
    async with database.transaction(of=ANN.id) as session:
        await session.execute(
            text("INSERT INTO users VALUES (:id, 'ann', 'member', NULL, now(), NULL)"), {"id": ANN.id}
        )
        await session.execute(
            text("INSERT INTO api_keys VALUES (:id, :who, 'laptop', 'wf-', 'x', now(), NULL, NULL, NULL)"),
            {"id": key, "who": ANN.id},
        )
        await session.execute(
            text(
                "INSERT INTO council_runs VALUES (:id, :who, 'council:duo', 'duo', 'open', NULL, 2, '', 'worth', '{}',"
                " '[]', NULL, NULL, NULL, NULL, NULL, 'completed', now(), 1, NULL)"
            ),
            {"id": council, "who": ANN.id},
        )
    rows = [
        request(BEGINNING, of=ANN.id, key_id=key, council_id=council),
        request(BEGINNING, of=BOB.id, key_id=gone, council_id=uuid4(), engine="f", model="n"),
        request(BEGINNING, of=BOB.id),
    ]
    await use(database, *rows)
    seen: dict[str, Any] = {}
    for name, field in FIELDS.items():
        report = await everything(reports, name)
        seen[name] = set(column(report, *(each.name for each in field.columns), "requests"))
    assert seen == {
        "day": {(BEGINNING.date(), 3)},
        "month": {("2026-11", 3)},
        "user": {(str(ANN.id), "ann", 1), (str(BOB.id), None, 2)},
        "key": {(str(key), "laptop", 1), (str(gone), None, 1), (None, None, 1)},
        "model": {("m", 2), ("n", 1)},
        "council": {("council:duo", 1), ("unknown", 1), (None, 1)},
        "engine": {("e", 2), ("f", 1)},
        "placement": {("local", 3)},
        "request": {(str(row["request_id"]), 1) for row in rows},
    }
    assert len((await everything(reports, ",".join(FIELDS))).rows) == 3


async def test_a_person_sees_their_own_alone(database: Database, reports: Reports) -> None:
    """By whatever field; what others did is in their shares, and nowhere else."""
    await use(database, request(BEGINNING, of=ANN.id), request(BEGINNING, of=BOB.id, input_tokens=1_000_000))
    for by in FIELDS:
        question = reports.question(by, first=None, last=None, zone="UTC")
        total = (await reports.read(ANN, question)).total
        assert (total["requests"], total["input_tokens"], total["gpu_ms"]) == (1, 10, 500), by
        assert (await reports.read(somebody(), question)).rows == []


async def test_nothing_is_a_report_too(reports: Reports) -> None:
    """Without usage there are no groups, and zeros; without a field there is one group."""
    assert (await everything(reports, "day,user")).rows == []
    whole = await everything(reports, "")
    assert whole.rows == [whole.total]
    assert (whole.total["requests"], whole.total["gpu_ms"]) == (0, 0)
    assert (whole.total["energy_mj"], whole.total["cost"]) == (None, None)


async def test_days_are_those_of_a_time_zone(database: Database, reports: Reports) -> None:
    """The same requests are of other days elsewhere, also where clocks change."""
    times = [datetime(2026, 10, 24, 21, 59, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC)]
    times += [datetime(2026, 10, 25, 22, 59, tzinfo=UTC), datetime(2026, 10, 25, 23, tzinfo=UTC)]
    await use(database, *(request(at, of=ANN.id) for at in times))
    for zone, expected in (
        ("UTC", [("2026-10-24", 2), ("2026-10-25", 2)]),
        # The 25th has 25 hours.
        ("Europe/Berlin", [("2026-10-24", 1), ("2026-10-25", 2), ("2026-10-26", 1)]),
        ("Pacific/Kiritimati", [("2026-10-25", 2), ("2026-10-26", 2)]),
    ):
        report = await everything(reports, "day", zone=zone, first="2026-10-01", last="2026-10-31")
        assert [(str(day), count) for day, count in column(report, "day", "requests")] == expected, zone
    only = await everything(reports, "month", zone="Europe/Berlin", first="2026-10-25", last="2026-10-25")
    assert column(only, "month", "requests") == [("2026-10", 2)]


async def test_costs_are_made_with_the_prices_of_then(database: Database, reports: Reports, clock: FakeClock) -> None:
    """Each request at the price of its model, else that of all others; without a price there is no cost."""
    prices = Prices(database, clock)
    one = Amounts(input_per_million=Decimal("0.1"), output_per_million=Decimal("0.7"))
    two = Amounts(input_per_million=Decimal(100), output_per_million=Decimal(0), per_gpu_second=Decimal("0.25"))
    rest = Amounts(input_per_million=Decimal(0), output_per_million=Decimal(1), per_kwh=Decimal("0.36"))
    await prices.put(ROOT, "m", one, BEGINNING - 2 * DAY)
    await prices.put(ROOT, "m", two, BEGINNING - DAY)
    await prices.put(ROOT, "*", rest, BEGINNING - DAY)
    await prices.remove(ROOT, "m")
    tokens = {"input_tokens": 1_000_001, "output_tokens": 3}
    await use(
        database,
        request(BEGINNING - 3 * DAY, of=ANN.id, **tokens),
        request(BEGINNING - DAY - timedelta(microseconds=1), of=ANN.id, **tokens),
        request(BEGINNING - DAY + HOUR, of=ANN.id, **tokens),
        request(BEGINNING, of=ANN.id, **tokens),
        request(BEGINNING - HOUR, of=ANN.id, model="n", **tokens),
    )
    await sample(database, "gpu", BEGINNING - HOUR, [{"energy_mj": 3_600_000}] * 2)
    # Ids sort by time.
    report = await everything(reports, "request,model")
    assert column(report, "model", "cost", "unpriced_requests", "energy_mj", "unmetered_requests") == [
        ("m", None, 1, None, 1),
        ("m", Decimal("0.1000022"), 0, None, 1),
        ("m", Decimal("100.0001") + Decimal("0.25"), 0, None, 1),
        ("n", Decimal("0.000003") + Decimal("0.00036"), 0, 3_600_000, 0),
        # The price of m has ended, and that of all others holds.
        ("m", Decimal("0.000003"), 0, None, 1),
    ]
    assert report.total["cost"] == Decimal("100.3504682")
    assert (report.total["unpriced_requests"], report.total["energy_mj"]) == (1, 3_600_000)


@pytest.mark.parametrize(
    ("asked", "param", "sentence"),
    [
        ({"by": "day,colour"}, "by", "A report cannot be made by 'colour'. It can by: day, month, "),
        ({"by": "day,"}, "by", "A report cannot be made by ''."),
        ({"by": "DAY"}, "by", "A report cannot be made by 'DAY'."),
        ({"by": "model,day,model"}, "by", "model is named twice."),
        ({"by": "x" * 100_000}, "by", "A report cannot be made by 'xxx"),
        ({"by": "day;DROP TABLE usage"}, "by", "A report cannot be made by 'day;DROP"),
        ({"first": "2026-11-02", "last": "2026-11-01"}, "from", "from (2026-11-02) is after to (2026-11-01)."),
        ({"first": "2027-11-02"}, "from", "from (2027-11-02) is after to (2026-11-23)."),
        ({"first": "2025-10-19"}, "from", "A report is about 400 days at the most, not 401."),
        ({"first": "0001-01-01"}, "from", "from is a day from 2000-01-01 on, written as 2026-11-01."),
        ({"last": "9999-12-31"}, "to", "to is a day"),
        ({"last": "2026-02-30"}, "to", "to is a day"),
        ({"last": "20261101"}, "to", "to is a day"),
        ({"last": "2026-W10-1"}, "to", "to is a day"),
        ({"last": "٢٠٢٦-١١-٠١"}, "to", "to is a day"),
        ({"last": ""}, "to", "to is a day"),
        ({"zone": "Mars/Olympus"}, "tz", "There is no time zone 'Mars/Olympus'."),
        ({"zone": "../../etc/passwd"}, "tz", "There is no time zone"),
        ({"zone": "Europe"}, "tz", "There is no time zone 'Europe'."),
        ({"zone": "A/" * 1_000}, "tz", "There is no time zone"),
        ({"zone": "UTC\0"}, "tz", "There is no time zone"),
        ({"zone": ""}, "tz", "There is no time zone"),
    ],
)
def test_questions_that_make_no_sense(asked: dict[str, str], param: str, sentence: str) -> None:
    """Each is refused by the name of what is wrong, and asks Postgres nothing."""
    reports = Reports(Database("postgresql:///"), FakeClock())
    question: dict[str, Any] = {"by": "day", "first": None, "last": None, "zone": "UTC", **asked}
    with pytest.raises(InvalidRequest) as caught:
        reports.question(question.pop("by"), **question)
    assert caught.value.param == param
    assert caught.value.message.startswith(sentence)


def test_days_without_a_midnight() -> None:
    """Where clocks go forward at midnight the day begins an hour later; one that was left out has no time at all."""
    cairo = days_of(BEGINNING, first="2026-04-24", last="2026-04-24", zone="Africa/Cairo")
    assert (cairo.since, cairo.until - cairo.since) == (datetime(2026, 4, 23, 22, tzinfo=UTC), 23 * HOUR)
    apia = days_of(BEGINNING, first="2011-12-30", last="2011-12-31", zone="Pacific/Apia")
    assert apia.borders[0] == apia.borders[1]
    assert apia.until - apia.since == DAY


def test_the_last_thirty_days_are_the_default() -> None:
    """Up to today, where whoever asks lives; and never from before there are days."""
    assert [str(day) for day in days_of(BEGINNING).dates[::29]] == ["2026-10-25", "2026-11-23"]
    assert str(days_of(BEGINNING, zone="Pacific/Kiritimati").dates[-1]) == "2026-11-24"
    assert len(days_of(BEGINNING, last="2000-01-02").dates) == 2


async def test_a_report_has_so_many_groups(
    database: Database, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is refused, and says what to do."""
    monkeypatch.setattr(module, "GROUPS_MAX", 3)
    await use(database, *(request(BEGINNING + each * HOUR, of=ANN.id, model=f"m{each}") for each in range(4)))
    assert len((await everything(reports, "user")).rows) == 1
    with pytest.raises(InvalidRequest, match=r"more than 3 rows\. Ask for fewer days or fewer fields") as caught:
        await everything(reports, "model")
    assert caught.value.code == "too_many_groups"


async def test_a_report_takes_so_long(database: Database, reports: Reports, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then Postgres gives up, and whoever asked hears why instead of that it is away; the next one is made."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "_BOUND", text("SELECT set_config('statement_timeout', '1', true)"))
        patch.setattr(module, "_query", lambda _: text("SELECT pg_sleep(60)"))
        with pytest.raises(InvalidRequest, match="takes longer than 14 seconds"):
            await everything(reports, "")
    await use(database, request(BEGINNING, of=ANN.id))
    assert (await everything(reports, "")).total["requests"] == 1


async def test_a_postgres_that_goes_away_says_so(
    database: Database, database_url: str, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of the rows; with the next connection reports are made again."""
    owner = create_async_engine(async_url(database_url), isolation_level="AUTOCOMMIT")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_query", lambda _: text("SELECT pg_sleep(60)"))
        asked = asyncio.ensure_future(everything(reports, ""))
        end = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%sleep(60)' AND state = 'active'"
        )
        async with owner.connect() as connection:
            while not await connection.scalar(text(end)):
                await SystemClock().sleep_ms(10)
        with pytest.raises(Unavailable):
            await asked
    await owner.dispose()
    await use(database, request(BEGINNING, of=ANN.id))
    assert (await everything(reports, "")).total["requests"] == 1


async def test_few_are_made_at_a_time(reports: Reports) -> None:
    """A person who asks for many waits for them, and no more than so many; others are not refused for that."""
    question = reports.question("day", first=None, last=None, zone="UTC")
    asked = [asyncio.ensure_future(reports.read(ANN, question)) for _ in range(WAITING_MAX + 1)]
    done = await asyncio.gather(*asked, reports.read(BOB, question), return_exceptions=True)
    assert [type(each) for each in done] == [Report] * WAITING_MAX + [TooMany, Report]
    assert (await reports.read(ANN, question)).rows == []
