"""What councils did is written once, whatever becomes of Postgres, and nobody waits for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import structlog
from msgspec.structs import replace

from server.clock import SystemClock
from server.council import runs as runs_module
from server.council.events import Report, Usage
from server.council.runs import LIFE_MS_MAX, RETRY_MS, Runs, members_of
from server.db.session import Database
from server.errors import Unavailable
from tests.clocks import FakeClock
from tests.council_stores.parts import THREE, later, member, rows, run
from tests.usage.test_writer import no_database

SECRET = "nobody may read this later"


@asynccontextmanager
async def running(runs: Runs) -> AsyncIterator[asyncio.Task[None]]:
    """The loop, until the block ends."""
    task = asyncio.create_task(runs.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def turns(runs: Runs, waiting: int) -> None:
    """Until so many wait; it must be soon."""
    clock = SystemClock()
    end_ms = clock.monotonic_ms() + 10_000
    while runs.waiting != waiting:
        assert clock.monotonic_ms() < end_ms, runs.waiting
        await clock.sleep_ms(5)


async def test_a_run_is_written_as_it_was(runs: Runs, database: Database) -> None:
    """Every field, and every member's; a label that nobody gave and a number that nobody took stay unknown."""
    chair = member("A", "small", "chair")
    members = (*THREE, member("D", "slow", state="revoked"), chair)
    full = run(
        uuid4(),
        members,
        wanted=None,
        size=4,
        steps=("smaller_council",),
        chair="small",
        verdict_method="chair",
        agreement=0.25,
        winner=None,
        shadow={"size": 2, "reason": "It would have been two."},
    )
    runs.record(full)
    await runs.settle(full.id)
    row = (await rows(database))[full.id]
    for name in full.__struct_fields__:
        if name not in ("members", "steps"):
            assert getattr(row, name) == getattr(full, name), name
    assert row.steps == ["smaller_council"]
    assert row.feedback is None
    assert [(each["label"], each["role"], each["state"]) for each in row.members] == [
        *(("A", "leader", "done"), ("B", "member", "done"), ("C", "member", "done")),
        *(("D", "member", "revoked"), ("A", "chair", "done")),
    ]
    assert row.members[3]["reason"] == "It was stopped for somebody who waited."
    assert row.members[0] | {"prompt_tokens": 7, "completion_tokens": 3, "total_ms": 34} == row.members[0]


async def test_nothing_that_was_said_is_stored(runs: Runs, database: Database) -> None:
    """Reports with texts leave none of them; the leader is known by its label, and only where it answers."""
    told = Usage(prompt_tokens=9, completion_tokens=4, cached_tokens=2)
    reports = (
        Report(label="A", model="small", engine="e", role="member", state="done", text=SECRET, usage=told),
        Report(label="B", model="large", engine="e", role="member", state="failed", reason="It is away."),
        Report(label="A", model="small", engine="e", role="judge", state="done", text=SECRET, total_ms=5),
    )
    stored = run(uuid4(), members_of(reports, "A"))
    runs.record(stored)
    await runs.settle(stored.id)
    row = (await rows(database))[stored.id]
    assert [(each["role"], each["state"], each["reason"]) for each in row.members] == [
        *(("leader", "done", None), ("member", "failed", "It is away."), ("judge", "done", None)),
    ]
    tokens = [(each["prompt_tokens"], each["completion_tokens"], each["cached_tokens"]) for each in row.members]
    assert tokens == [(9, 4, 2), (0, 0, 0), (0, 0, 0)]
    assert SECRET not in str({column.name: getattr(row, column.name) for column in row.__table__.columns})


async def test_whoever_records_waits_for_nothing(runs: Runs, database: Database, clock: FakeClock) -> None:
    """The loop writes what is there, also all that has come meanwhile, and what is left at the end."""
    async with running(runs):
        for _ in range(250):
            runs.record(run(uuid4()))
        await turns(runs, 0)
        assert len(await rows(database)) == 250
        runs.record(run(uuid4()))
    assert len(await rows(database)) == 251
    assert clock.monotonic_ms() == 0


async def test_a_run_that_ends_ends_its_row(runs: Runs, database: Database) -> None:
    """What was known when it began gives way to what came of it, and never the other way."""
    began = run(uuid4(), members_of((), "A"), outcome="running", total_ms=0, winner=None)
    ended = replace(began, members=THREE, outcome="completed", total_ms=1_234, winner="A", reason="It was told.")
    found = []
    for each in (began, ended, began):
        runs.record(each)
        await runs.settle(began.id)
        row = (await rows(database))[began.id]
        found.append((row.outcome, row.winner, row.reason, len(row.members)))
    assert found == [("running", None, began.reason, 0), *[("completed", "A", "It was told.", 3)] * 2]


async def test_a_run_that_ends_while_its_beginning_is_written_is_not_forgotten(
    runs: Runs, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue keeps what came meanwhile."""
    began = run(uuid4(), outcome="running", total_ms=0)
    written = runs._insert

    async def slowly(batch: Any) -> None:
        await written(batch)
        if batch == [began]:
            runs.record(replace(began, outcome="failed", total_ms=9))

    monkeypatch.setattr(runs, "_insert", slowly)
    runs.record(began)
    await runs.settle(began.id)
    assert runs.waiting == 1
    await runs.settle(began.id)
    assert ((await rows(database))[began.id].outcome, runs.waiting) == ("failed", 0)


async def test_a_run_whose_server_died_is_told_as_abandoned(runs: Runs, database: Database, clock: FakeClock) -> None:
    """When no council lives so long; nothing is written, so one that was only slow still ends."""
    left = run(uuid4(), outcome="running", total_ms=0, started_at=clock.now())
    runs.record(left)
    await runs.settle(left.id)
    clock.advance(timedelta(milliseconds=LIFE_MS_MAX))
    assert [row.outcome for row in await runs.newest()] == ["running"]
    clock.advance(timedelta(milliseconds=1))
    assert [row.outcome for row in await runs.newest()] == ["abandoned"]
    assert (await rows(database))[left.id].outcome == "running"
    runs.record(replace(left, outcome="completed", total_ms=LIFE_MS_MAX + 2))
    await runs.settle(left.id)
    assert [row.outcome for row in await runs.newest()] == ["completed"]


async def test_the_same_run_twice_is_one_row(runs: Runs, database: Database) -> None:
    """After a lost reply it is written again, and nothing changes."""
    first = run(uuid4())
    for each in (first, replace(first, reason="something else")):
        runs.record(each)
        await runs.settle(first.id)
    (row,) = (await rows(database)).values()
    assert row.reason == first.reason


async def test_runs_wait_while_postgres_is_away(
    runs: Runs, database: Database, clock: FakeClock, database_url: str, postgres_url: str
) -> None:
    """They stay in memory, in their order; the log says so once; afterwards all are there."""
    with structlog.testing.capture_logs() as lines:
        async with running(runs):
            async with no_database(database_url, postgres_url):
                waiting = [run(uuid4()) for _ in range(5)]
                for each in waiting:
                    runs.record(each)
                    with pytest.raises(Unavailable):
                        await runs.settle(each.id)
                for _ in range(3):
                    clock.advance(timedelta(milliseconds=RETRY_MS))
                    await SystemClock().sleep_ms(20)
                assert runs.waiting == 5
            while runs.waiting:
                clock.advance(timedelta(milliseconds=RETRY_MS))
                await SystemClock().sleep_ms(20)
    assert set(await rows(database)) == {each.id for each in waiting}
    assert [line["event"] for line in lines] == ["council runs wait"]


async def test_memory_has_a_bound(
    runs: Runs, database: Database, database_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest are forgotten, and the log says how many; the server ends all the same."""
    monkeypatch.setattr(runs_module, "QUEUE_MAX", 3)
    recorded = [run(uuid4()) for _ in range(5)]
    with structlog.testing.capture_logs() as lines:
        async with no_database(database_url, postgres_url):
            for each in recorded:
                runs.record(each)
            assert runs.waiting == 3
            async with running(runs):
                await SystemClock().sleep_ms(20)
            assert runs.waiting == 3
        async with running(runs):
            await turns(runs, 0)
            await SystemClock().sleep_ms(20)
    assert set(await rows(database)) == {each.id for each in recorded[2:]}
    events = [(line["event"], line.get("count")) for line in lines if line["log_level"] == "error"]
    assert events == [("council runs are lost", 3), ("council runs were forgotten while Postgres was away", 2)]


UNWRITABLE: list[dict[str, Any]] = [{"total_ms": 1 << 63}, {"size": -(1 << 70)}, {"shadow": {"x": float("nan")}}]


@pytest.mark.parametrize("wrong", UNWRITABLE, ids=str)
async def test_a_run_that_postgres_refuses_stops_nobody(
    runs: Runs, database: Database, clock: FakeClock, wrong: dict[str, Any]
) -> None:
    """It is tried a few times and left out with a line in the log; those around it are written at once."""
    around = [run(uuid4()) for _ in range(4)]
    refused = run(uuid4(), **wrong)
    with structlog.testing.capture_logs() as lines:
        async with running(runs):
            for each in (*around[:2], refused, *around[2:]):
                runs.record(each)
            await turns(runs, 1)
            assert set(await rows(database)) == {each.id for each in around}
            async with asyncio.timeout(10):
                while runs.waiting:
                    clock.advance(timedelta(milliseconds=RETRY_MS))
                    await SystemClock().sleep_ms(50)
    assert [(line["event"], line["council"]) for line in lines] == [
        ("a council run cannot be written", str(refused.id))
    ]


async def test_whatever_an_engine_says_can_be_stored(runs: Runs, database: Database) -> None:
    """Its reasons may be long, and hold what no column takes."""
    said = "a\0b\ud800" + "x" * 10_000
    odd = run(uuid4(), (replace(THREE[0], state="failed", reason=said),), reason=said, shadow={said: [said, 1, None]})
    runs.record(odd)
    await runs.settle(odd.id)
    row = (await rows(database))[odd.id]
    assert row.reason.startswith("ab?x")
    assert len(row.reason) == len(row.members[0]["reason"]) == runs_module.TEXT_CHARACTERS_MAX
    assert row.shadow is not None
    assert next(iter(row.shadow.values()))[1:] == [1, None]


async def test_pages_follow_each_other(runs: Runs) -> None:
    """Newest first, each run on one page, also where several began at the same moment."""
    recorded = [run(uuid4(), started_at=later(number // 3)) for number in range(10)]
    for each in recorded:
        runs.record(each)
    await runs.settle(recorded[0].id)
    expected = [each.id for each in sorted(recorded, key=lambda each: (each.started_at, each.id), reverse=True)]
    seen: list[Any] = []
    while page := await runs.newest(before=seen[-1] if seen else None, count_max=4):
        seen += [row.id for row in page]
    assert seen == expected
    assert await runs.newest(before=uuid4()) == []
    assert len(await runs.newest(count_max=10_000)) == 10
