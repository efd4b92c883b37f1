"""The check of the ledger: all is well after every ending, and whatever is not right is found."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from server.db.session import Database
from tests.usage.rig import BEGINNING, ENGINE, INPUT_TOKENS, PREFIX, Rig

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking again does not wait."""
    monkeypatch.setattr("server.usage.invariants.LOOK_AGAIN_MS", 1)


@pytest.fixture
async def rig(redis: Redis, database_url: str) -> AsyncIterator[Rig]:
    """A replica, a ledger and rows."""
    database = Database(database_url, connections_max=2)
    yield await Rig(redis, database).open()
    await database.close()


# Every ending.


@pytest.mark.parametrize("outcome", ["completed", "cancelled", "failed", "revoked"])
@pytest.mark.parametrize("times", [1, 2])
async def test_an_end_is_a_row_and_its_tokens_are_in_the_budget(rig: Rig, outcome: str, times: int) -> None:
    """While others run and wait; also where the reply to the end was lost."""
    entries = [await rig.enter() for _ in range(4)]
    assert await rig.is_well()
    await rig.end(entries[0], 30, outcome, times)
    assert await rig.is_well()
    verdict = await rig.look()
    day, month = verdict.lines[1], verdict.lines[0]
    assert (day.window, month.window) == ("2026-01-31", "2026-01")
    assert (day.budget_tokens, day.row_tokens, day.reserved_tokens) == (340, 40, 300)
    assert (day.budget_requests, day.rows, day.events, day.held) == (4, 1, 0, 3)
    assert (verdict.running, verdict.waiting, verdict.looks) == (2, 1, 1)


async def test_who_leaves_before_the_turn_leaves_nothing(rig: Rig) -> None:
    """In the queue, or in the very moment of the turn."""
    entries = [await rig.enter() for _ in range(3)]
    for entry in reversed(entries):
        await rig.ledger.cancel(entry.id)
        assert await rig.is_well()
    assert [line.budget_requests for line in (await rig.look()).lines] == [0, 0]


async def test_a_server_that_is_killed_leaves_what_it_had_reported(rig: Rig) -> None:
    """Its running request is a row, its queued one nothing; while nobody reaps, both are held."""
    entries = [await rig.enter() for _ in range(3)]
    await rig.report(entries[0], 20)
    rig.pass_ms(60_000)
    verdict = await rig.look()
    assert verdict.is_well
    assert "ran on a server that is gone" in verdict.notes[0]
    assert len(await rig.lose()) == 2
    assert await rig.is_well()
    assert (await rig.row(entries[0]))[:2] == ("abandoned", 20)


@pytest.mark.parametrize("is_written_before", [True, False])
async def test_a_replica_that_was_only_cut_off_has_the_last_word(rig: Rig, *, is_written_before: bool) -> None:
    """It ends what had been abandoned: the row and the budget take its numbers, once."""
    entry = await rig.enter()
    await rig.report(entry, 20)
    assert await rig.lose() == [entry.id]
    if is_written_before:
        await rig.write()
    assert await rig.report(entry, 25) == [(entry.id, "lost")]
    await rig.end(entry, 33, "failed", times=2)
    assert await rig.is_well()
    assert (await rig.row(entry))[:2] == ("failed", 33)
    assert (await rig.look()).lines[0].budget_tokens == INPUT_TOKENS + 33


@pytest.mark.parametrize("end", ["completed", "abandoned", "cancelled in the queue"])
@pytest.mark.parametrize("pause_ms", [0, 2 * HOUR_MS])
async def test_one_whose_turn_came_while_its_replica_was_cut_off_enters_again(
    rig: Rig, end: str, pause_ms: int
) -> None:
    """The reaper had written it off; whatever becomes of it now counts instead, also in another day and month."""
    entry = await rig.enter()
    assert await rig.lose() == [entry.id]
    await rig.write()
    rig.pass_ms(pause_ms)
    await rig.ledger.reap()
    await rig.enter(entry)
    assert await rig.is_well()
    if end == "completed":
        await rig.end(entry, 7)
    elif end == "abandoned":
        await rig.report(entry, 7)
        assert await rig.lose() == [entry.id]
    else:
        await rig.ledger.cancel(entry.id)
    assert await rig.is_well()
    outcome, tokens, _ = await rig.row(entry)
    assert (outcome, tokens) == {"completed": ("completed", 7), "abandoned": ("abandoned", 7)}.get(
        end, ("abandoned", 0)
    )


async def test_redis_that_lost_everything_counts_anew(rig: Rig) -> None:
    """Rows of before are no debt; what goes on is counted from now on; what ended meanwhile is a row all the same."""
    ended, running, ending = [await rig.enter() for _ in range(3)]
    await rig.end(ended, 30)
    await rig.write()
    rig.pass_ms(5)
    await rig.forget()
    assert (await rig.look()).lines == []
    await rig.end(ending, 40)
    assert await rig.is_well()
    rig.pass_ms(5)
    assert await rig.report(running, 12) == [(running.id, "missing")]
    await rig.enter(running, enters="running")
    assert await rig.is_well()
    await rig.end(running, 50)
    assert await rig.is_well()
    assert [line.budget_tokens for line in (await rig.look()).lines] == [INPUT_TOKENS + 50] * 2
    assert {(await rig.row(each))[1] for each in (ended, running, ending)} == {30, 40, 50}


@pytest.mark.parametrize("clock_error_ms", [0, -2 * DAY_MS, 2 * DAY_MS])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_request_belongs_to_the_window_in_which_redis_admitted_it(
    rig: Rig, clock_error_ms: int, times: int
) -> None:
    """A month ends while it runs, and the clock of its replica is wrong by days."""
    rig.clock_error_ms = clock_error_ms
    before, last = await rig.enter(), await rig.enter()
    await rig.end(before, 30, times=times)
    rig.pass_ms(HOUR_MS)
    await rig.ledger.reap()
    assert await rig.is_well()
    await rig.end(last, 1)
    assert await rig.is_well()
    after = await rig.enter()
    await rig.end(after, 2)
    assert await rig.is_well()
    assert [line.window for line in (await rig.look()).lines] == ["2026-02", "2026-02-01"]
    assert [line.budget_tokens for line in (await rig.look()).lines] == [INPUT_TOKENS + 2] * 2
    assert (await rig.row(last))[2] == BEGINNING
    assert (await rig.row(after))[2] == datetime(2026, 2, 1, tzinfo=UTC)


async def test_events_that_a_dead_writer_took_are_not_lost(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken and not acknowledged, written or not: they count once."""
    entries = [await rig.enter() for _ in range(2)]
    for entry in entries:
        await rig.end(entry, 5)
    await rig.ledger.open_events()
    events = await rig.ledger.events("dead", count_max=9, wait_ms=1)
    assert (await rig.look()).is_well
    with monkeypatch.context() as patch:
        patch.setattr(rig.ledger, "acknowledge", _not_at_all)
        await rig.writer._write(events)
    verdict = await rig.look()
    assert verdict.is_well
    assert (verdict.events, verdict.lines[0].rows, verdict.lines[0].events) == (2, 2, 0)


async def _not_at_all(_events: Any, **_options: Any) -> None:
    """Died."""


# What is not right.

Breaks = Callable[[Rig], Awaitable[Any]]


def _sql(statement: str) -> Breaks:
    async def change(rig: Rig) -> None:
        async with rig.database.transaction(everybody=True) as session:
            await session.execute(text(statement))

    return change


def _redis(*words: str | int) -> Breaks:
    async def change(rig: Rig) -> None:
        await cast("Any", rig.redis).execute_command(*(str(word).replace("ANN", str(rig.ann)) for word in words))

    return change


async def _last_event_is_dropped(rig: Rig) -> None:
    ((position, _),) = cast("Any", await rig.redis.xrevrange(f"{PREFIX}settled", count=1))
    await rig.redis.xdel(f"{PREFIX}settled", position)


async def _held_one(rig: Rig) -> str:
    return str((await rig.redis.zrange(f"{PREFIX}running:{ENGINE}", 0, -1))[0])


async def _record_is_lost(rig: Rig) -> None:
    await rig.redis.delete(f"{PREFIX}request:{await _held_one(rig)}")


async def _list_is_lost(rig: Rig) -> None:
    await rig.redis.delete(f"{PREFIX}running:{ENGINE}")


async def _ended_row_is_held(rig: Rig) -> None:
    async with rig.database.transaction(everybody=True) as session:
        await session.execute(text("UPDATE usage SET request_id = :held"), {"held": UUID(await _held_one(rig))})


async def _event_is_unreadable(rig: Rig) -> None:
    await rig.redis.xadd(f"{PREFIX}settled", {"id": "nobody knows", "output_tokens": "many"})
    await rig.write()


BUDGET = f"{PREFIX}budget:ANN"
ROW = (
    "INSERT INTO usage (request_id, user_id, surface, model, engine, input_tokens, output_tokens, queue_ms, total_ms,"
    " outcome, started_at) SELECT gen_random_uuid(), user_id, surface, model, engine, {tokens}, 0, 0, 0, 'completed',"
    " started_at + interval '{later}' FROM usage"
)
WRONG: dict[str, tuple[Breaks, set[str], str]] = {
    "a row has other tokens": (
        _sql("UPDATE usage SET output_tokens = output_tokens + 3"),
        {"tokens"},
        "for 2026-01-31 holds 153 tokens: 3 less than the 43 of usage rows, 13 of events not yet written and 100 res",
    ),
    "a row is gone": (
        _sql("DELETE FROM usage"),
        {"tokens", "requests"},
        "times in 2026-01: 0 have a row, 1 an event not yet written, 1 wait or run; that is 1 without a usage row.",
    ),
    "a request without tokens is there twice": (
        _sql(ROW.format(tokens=0, later="1 ms")),
        {"requests"},
        "that is 1 more than were admitted.",
    ),
    "a row is another person's": (
        _sql("UPDATE usage SET user_id = gen_random_uuid()"),
        {"tokens", "requests"},
        "that is 1 without a usage row.",
    ),
    "a row has another time": (
        _sql("UPDATE usage SET started_at = started_at - interval '40 days'"),
        {"tokens", "requests"},
        "holds 153 tokens: 40 more than the 0 of usage rows",
    ),
    "a row lies in the future": (
        _sql(ROW.format(tokens=9, later="3 hours")),
        {"clock"},
        "1 usage row of ann lie in the future: a clock has jumped.",
    ),
    "an event is lost": (_last_event_is_dropped, {"tokens", "requests"}, "that is 1 without a usage row."),
    "the budget of a day is wrong": (
        _redis("HINCRBY", BUDGET, "tokens_day", 1),
        {"tokens"},
        "The budget of ann for 2026-01-31 holds 154 tokens: 1 more than",
    ),
    "the budget of a month is wrong": (
        _redis("HINCRBY", BUDGET, "tokens_month", -1),
        {"tokens"},
        "The budget of ann for 2026-01 holds 152 tokens: 1 less than",
    ),
    "the number of requests is wrong": (_redis("HINCRBY", BUDGET, "requests_day", 1), {"requests"}, "4 times"),
    "a budget is gone": (_redis("DEL", BUDGET), {"budget"}, "reserves 100 tokens in a budget that is not there."),
    "a record is gone": (_record_is_lost, {"record", "tokens", "requests"}, "which has no record of it"),
    "a request is in no list": (_list_is_lost, {"list", "tokens", "requests"}, "neither waits nor runs: it never ends"),
    "a request has ended and runs": (
        _ended_row_is_held,
        {"ended", "tokens", "requests"},
        f"runs on {ENGINE} for the ledger, and its usage row says completed.",
    ),
    "an event is unreadable": (
        _event_is_unreadable,
        {"unreadable"},
        "The usage event of nobody knows was set aside, since no row can be made of it: ",
    ),
    "a budget is nobody's": (
        _redis("HSET", f"{PREFIX}budget:you", "day", 1, "tokens_day", 1, "month", 1, "tokens_month", 1),
        {"person"},
        "The ledger keeps a budget for 'you', which is nobody's id.",
    ),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_not_right_is_found(rig: Rig, what: str) -> None:
    """Among a request that is a row, one that is an event, and one that runs, one thing is broken: it is told."""
    change, rules, sentence = WRONG[what]
    entries = [await rig.enter() for _ in range(3)]
    await rig.end(entries[0], 30)
    await rig.write()
    await rig.end(entries[1], 3)
    rig.pass_ms(10)
    assert (await rig.look()).is_well
    await change(rig)
    verdict = await rig.look()
    assert not verdict.is_well
    assert {breach.rule for breach in verdict.broken} == rules
    told = [breach.sentence for breach in verdict.broken]
    assert any(sentence in each for each in told), told
    assert verdict.looks == 4


async def test_a_lease_that_nobody_takes_back_is_found(rig: Rig) -> None:
    """Servers are there, and do not do their work."""
    entry = await rig.enter()
    rig.pass_ms(120_000)
    await rig.ledger.charge("two", [])
    verdict = await rig.look()
    assert [(breach.rule, breach.subject) for breach in verdict.broken] == [("lease", entry.id)]


async def test_events_that_nobody_writes_are_found(rig: Rig) -> None:
    """As long as servers run, since they should."""
    await rig.end(await rig.enter(), 3)
    # Redis gave the event its own time.
    seconds, _ = await rig.redis.time()
    rig.ledger.now_ms = seconds * 1_000 + 20 * 60_000
    assert (await rig.look()).is_well
    await rig.ledger.charge("one", [])
    (breach,) = (await rig.look()).broken
    assert breach.rule == "late"
    assert breach.sentence.startswith("1 event waited up to ")


async def test_what_changes_while_it_looks_is_no_alarm(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request ends, is written and others come between the look at Redis and that at Postgres."""
    entry = await rig.enter()
    audit = rig.ledger.audit

    async def look_and_go_on(flows: Any) -> Any:
        found = await audit(flows)
        rig.pass_ms(3)
        await rig.end(entry, 5)
        await rig.end(await rig.enter(), 6)
        await rig.write()
        monkeypatch.setattr(rig.ledger, "audit", audit)
        return found

    monkeypatch.setattr(rig.ledger, "audit", look_and_go_on)
    verdict = await rig.look()
    assert verdict.is_well
    # The first look saw one request as running and as ended.
    assert verdict.looks == 2


async def test_budgets_of_before_requests_were_counted_are_compared_by_their_tokens(rig: Rig) -> None:
    """An older server has begun them: no number, and no beginning."""
    await rig.end(await rig.enter(), 3)
    await rig.redis.hdel(f"{PREFIX}budget:{rig.ann}", "since_ms", "requests_day", "requests_month")
    await rig.end(await rig.enter(), 4)
    assert await rig.is_well()
    assert [line.budget_requests for line in (await rig.look()).lines] == [None, None]
    rig.pass_ms(2 * HOUR_MS)
    await rig.ledger.reap()
    await rig.end(await rig.enter(), 5)
    assert await rig.is_well()
    assert [line.budget_requests for line in (await rig.look()).lines] == [1, 1]


async def test_somebody_who_was_deleted_with_all_rows_is_no_alarm(rig: Rig) -> None:
    """Their budget stays in Redis for a month."""
    await rig.end(await rig.enter(), 3)
    await rig.write()
    await _sql("DELETE FROM usage")(rig)
    await _sql("DELETE FROM users")(rig)
    verdict = await rig.look()
    assert verdict.is_well
    assert verdict.notes == ["1 budget of people who were deleted, with their rows, cannot be compared."]


async def _everything(raw: Redis) -> dict[bytes, Any]:
    return {key: (await raw.dump(key), await raw.pttl(key) > 0) async for key in raw.scan_iter()}


async def test_looking_changes_nothing(rig: Rig, redis_url: str) -> None:
    """Redis and Postgres are as they were, to the last field."""
    entries = [await rig.enter() for _ in range(4)]
    await rig.end(entries[0], 3)
    await rig.ledger.open_events()

    async with Redis.from_url(redis_url) as raw:
        before = await _everything(raw)
        await rig.look()
        assert await _everything(raw) == before
