"""Budgets, by the scripts themselves in virtual time: windows of the calendar, and never more than they hold."""

import asyncio
from calendar import monthrange
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from quotas.ledger import Admission, Budget
from quotas.policy import Limits
from tests.quotas.yard import Yard

MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS
LAST = datetime(2199, 12, 31, 23, 59, 59, 999_000, UTC)
moments = st.datetimes(datetime(1970, 1, 1), LAST.replace(tzinfo=None), timezones=st.just(UTC))  # noqa: DTZ001
in_redis = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def yard(redis: Redis) -> Yard:
    """A box with room."""
    return Yard(redis)


def at(yard: Yard, *moment: int) -> None:
    """It is this moment now."""
    yard.ledger.now_ms = _ms(datetime(*moment, tzinfo=UTC))  # type: ignore[misc,arg-type]


def _ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _ends(now: datetime) -> tuple[int, int, int]:
    """When minute, day and month end, in milliseconds from now, as Python's calendar has it."""
    minute = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
    day = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    month = first + timedelta(days=monthrange(now.year, now.month)[1])
    return _ms(minute) - _ms(now), _ms(day) - _ms(now), _ms(month) - _ms(now)


def _tokens(budget: Budget) -> tuple[int, int, int]:
    return budget.tokens_per_minute, budget.tokens_per_day, budget.tokens_per_month


@in_redis
@given(moments)
@example(datetime(2024, 2, 28, 23, 59, 59, 999_000, UTC))
@example(datetime(2024, 2, 29, 12, tzinfo=UTC))
@example(datetime(2023, 2, 28, 12, tzinfo=UTC))
@example(datetime(2000, 2, 29, tzinfo=UTC))
@example(datetime(2100, 2, 28, 23, 59, tzinfo=UTC))
@example(datetime(2026, 12, 31, 23, 59, 59, 999_000, UTC))
@example(datetime(2027, 1, 1, tzinfo=UTC))
@example(datetime(1970, 1, 1, tzinfo=UTC))
async def test_windows_end_as_in_pythons_calendar(redis: Redis, now: datetime) -> None:
    """Minute, day and month, in UTC, with all leap years; and the ends are ahead."""
    yard = Yard(redis)
    yard.ledger.now_ms = _ms(now)
    budget = await yard.ledger.budget("ann")
    assert (budget.minute_ends_ms, budget.day_ends_ms, budget.month_ends_ms) == _ends(now)


@in_redis
@given(moments, st.sampled_from([1, 30_000, MINUTE_MS, 3_600_000, DAY_MS, 27 * DAY_MS, 31 * DAY_MS, 365 * DAY_MS]))
@example(datetime(2024, 2, 1, tzinfo=UTC), 28 * DAY_MS)
@example(datetime(2023, 2, 1, tzinfo=UTC), 28 * DAY_MS)
async def test_what_was_used_is_forgotten_with_its_window(redis: Redis, now: datetime, later_ms: int) -> None:
    """What counts later is what was used in the same minute, day and month."""
    yard = Yard(redis)
    await yard.window(slots=9)
    yard.ledger.now_ms = _ms(now)
    await yard.ask("ann", prompt=3, answer=4)
    yard.ledger.now_ms += later_ms
    then = now + timedelta(milliseconds=later_ms)
    budget = await yard.ledger.budget("ann")
    formats = ("%Y%m%d%H%M", "%Y%m%d", "%Y%m")
    assert _tokens(budget) == tuple(7 * (now.strftime(each) == then.strftime(each)) for each in formats)
    assert budget.requests_per_minute == (now.strftime(formats[0]) == then.strftime(formats[0]))


# Reservation and settlement.


async def test_the_worst_case_is_reserved_and_the_rest_given_back(yard: Yard) -> None:
    """While it runs the longest answer counts; in the end what was used."""
    await yard.window(slots=1)
    name, admission = await yard.enter("ann", prompt=10, answer=90)
    assert _tokens(admission.budget) == (100, 100, 100)
    assert admission.granted == 90
    await yard.stream(name, 20)
    assert _tokens(await yard.ledger.budget("ann")) == (100, 100, 100)
    await yard.end(name)
    budget = await yard.ledger.budget("ann")
    assert _tokens(budget) == (30, 30, 30)
    assert budget.requests_per_minute == 1


async def test_an_answer_of_no_length_gets_what_is_left(yard: Yard) -> None:
    """Who names no length is content with the least, and gets as much as the tightest window has."""
    await yard.window(slots=9)
    limits = Limits(tokens_per_minute=100, tokens_per_day=90, tokens_per_month=10_000)
    _, first = await yard.enter("ann", prompt=20, answer=4_096, answer_min=30, limits=limits)
    assert (first.state, first.granted) == ("running", 70)
    name, second = await yard.enter("ann", prompt=20, answer=4_096, answer_min=30, limits=limits)
    assert (second.state, second.limit, second.ends_ms) == ("limited", "tokens_per_day", second.budget.day_ends_ms)
    assert await yard.ledger.load("a") == (1, 0)
    assert name not in await yard.running()


async def test_who_has_no_limit_is_granted_what_was_asked_for(yard: Yard) -> None:
    """And is counted, so that a limit that is set later knows what was used before."""
    await yard.window(slots=9)
    _, admission = await yard.enter("ann", prompt=20, answer=4_096, answer_min=30)
    assert admission.granted == 4_096
    limited = await yard.enter("ann", prompt=1, answer=1, limits=Limits(tokens_per_day=4_117))
    assert (limited[1].state, limited[1].limit) == ("limited", "tokens_per_day")
    assert (await yard.enter("ann", prompt=1, answer=0, limits=Limits(tokens_per_day=4_117)))[1].state == "running"


async def test_of_several_budgets_the_last_to_be_renewed_is_named(yard: Yard) -> None:
    """Coming again at that moment is worth it."""
    await yard.window(slots=9)
    at(yard, 2026, 11, 23, 12, 0, 30)
    limits = Limits(tokens_per_minute=25, tokens_per_day=25, requests_per_minute=3)
    await yard.ask("ann", limits=limits)
    _, admission = await yard.enter("ann", limits=limits)
    assert (admission.limit, admission.ends_ms) == ("tokens_per_day", 11 * 3_600_000 + 59 * MINUTE_MS + 30_000)
    _, admission = await yard.enter("ann", limits=Limits(tokens_per_day=25, requests_per_minute=1))
    assert admission.limit == "tokens_per_day"
    _, admission = await yard.enter("ann", limits=Limits(tokens_per_day=90, requests_per_minute=1))
    assert (admission.limit, admission.ends_ms) == ("requests_per_minute", 30_000)


async def test_a_request_that_no_window_can_hold_is_told_so(yard: Yard) -> None:
    """Then no time is named, since there is none."""
    await yard.window(slots=9)
    _, admission = await yard.enter("ann", prompt=50, answer=51, limits=Limits(tokens_per_month=100))
    assert (admission.state, admission.limit, admission.ends_ms) == ("limited", "tokens_per_month", 0)
    assert (await yard.enter("ann", prompt=50, answer=50, limits=Limits(tokens_per_month=100)))[1].state == "running"


async def test_a_new_window_is_a_new_budget(yard: Yard) -> None:
    """At the very millisecond in which the minute, the day, the month begin."""
    await yard.window(slots=99)
    limits = Limits(tokens_per_minute=20, tokens_per_day=40, tokens_per_month=60)
    states = []
    for moment in (
        *((2024, 2, 28, 23, 58, 0), (2024, 2, 28, 23, 58, 59), (2024, 2, 28, 23, 59, 0), (2024, 2, 28, 23, 59, 59)),
        *((2024, 2, 29, 0, 0, 0), (2024, 2, 29, 0, 1, 0), (2024, 3, 1, 0, 0, 0)),
    ):
        at(yard, *moment)
        _, admission = await yard.enter("ann", limits=limits)
        states.append(admission.limit if admission.state == "limited" else "runs")
    minute, month = "tokens_per_minute", "tokens_per_month"
    assert states == ["runs", minute, "runs", "tokens_per_day", "runs", month, "runs"]


async def test_who_leaves_the_queue_has_used_nothing(yard: Yard) -> None:
    """Neither tokens nor the count of the request; likewise in the moment of its turn."""
    await yard.window(slots=1)
    running = await yard.ask("ann", prompt=30)
    waiting = await yard.ask("ann", prompt=50)
    assert (await yard.ledger.budget("ann")).tokens_per_day == 100
    await yard.ledger.cancel(waiting)
    await yard.ledger.cancel(waiting)
    budget = await yard.ledger.budget("ann")
    assert (budget.tokens_per_day, budget.requests_per_minute) == (40, 1)
    await yard.ledger.cancel(running)
    budget = await yard.ledger.budget("ann")
    assert (budget.tokens_per_day, budget.requests_per_minute) == (0, 0)


@pytest.mark.parametrize("state", ["full", "crowded", "stale", "limited"])
async def test_who_is_refused_has_used_nothing(yard: Yard, state: str) -> None:
    """Whatever the reason, neither a token nor a request is counted, and nothing is left."""
    await yard.window(slots=1)
    await yard.ask("bob")
    await yard.ask("ann")
    before = await yard.ledger.budget("ann")
    keys = await yard.redis.dbsize()
    refusals: dict[str, dict[str, object]] = {
        "full": {"queue_length_max": 1},
        "crowded": {"limits": Limits(queue_length_max=1)},
        "stale": {"version": "old"},
        "limited": {"limits": Limits(requests_per_minute=1)},
    }
    _, admission = await yard.enter("ann", **refusals[state])  # type: ignore[arg-type]
    assert admission.state == state
    assert await yard.ledger.budget("ann") == before
    assert await yard.redis.dbsize() == keys


async def test_a_lost_reply_reserves_once(yard: Yard) -> None:
    """Every script may be called again: entering, ending and cancelling count once."""
    await yard.window(slots=1)
    name, first = await yard.enter("ann", prompt=10, answer=10)
    again = await yard.ledger.enqueue(yard.entries[name], Limits(), replica="one", queue_length_max=9)
    assert (again.state, again.granted, again.budget) == (first.state, first.granted, first.budget)
    await yard.stream(name, 5)
    for _ in range(2):
        await yard.end(name)
    assert _tokens(await yard.ledger.budget("ann")) == (15, 15, 15)
    assert await yard.served("ann") == 20_000


async def test_what_ends_after_its_window_gives_nothing_to_the_next(yard: Yard) -> None:
    """It is settled in the windows in which it entered, as far as they last."""
    await yard.window(slots=9)
    at(yard, 2024, 2, 29, 23, 59, 59)
    long = await yard.ask("ann", prompt=10, answer=90)
    at(yard, 2024, 3, 1, 0, 0, 1)
    await yard.ask("ann", prompt=10, answer=10)
    await yard.stream(long, 10)
    await yard.end(long)
    assert _tokens(await yard.ledger.budget("ann")) == (20, 20, 20)
    at(yard, 2024, 3, 1, 12, 0, 0)
    short = await yard.ask("ann", prompt=10, answer=10)
    at(yard, 2024, 3, 1, 12, 1, 0)
    await yard.end(short)
    assert _tokens(await yard.ledger.budget("ann")) == (0, 30, 30)


async def test_a_dead_replica_leaves_what_it_had_charged(yard: Yard) -> None:
    """The reservation of its stream shrinks to what was reported; of one that waited nothing is left."""
    await yard.window(slots=1)
    await yard.pass_ms(1_000)
    streams = await yard.ask("ann", prompt=10, answer=90, replica="dead")
    await yard.ask("ann", prompt=10, answer=90, replica="dead")
    await yard.stream(streams, 7)
    for _ in range(4):
        await yard.ledger.charge("other", [])
        yard.ledger.now_ms = yard.now_ms + 2_000
        await yard.ledger.reap()
    assert (await yard.ledger.budget("ann")).tokens_per_day == 17
    # The replica was only cut off, and ends its stream after all: its row counts, the budget stays.
    await yard.end(streams, outcome="failed")
    assert (await yard.ledger.budget("ann")).tokens_per_day == 17


async def test_a_stream_that_is_entered_again_is_counted_again(yard: Yard) -> None:
    """After a loss of Redis' state everybody starts level, and what still runs is reserved anew, beyond any limit."""
    await yard.window(slots=1)
    name, _ = await yard.enter("ann", prompt=10, answer=90)
    await yard.stream(name, 50)
    await yard.redis.flushdb()
    await yard.window(slots=1)
    entry = yard.entries[name]
    strict = Limits(tokens_per_day=5)
    admission = await yard.ledger.enqueue(entry, strict, replica="one", queue_length_max=9, enters="running")
    assert (admission.state, admission.granted) == ("running", 90)
    await yard.end(name)
    assert (await yard.ledger.budget("ann")).tokens_per_day == 60


async def test_an_engine_that_used_more_than_was_reserved_is_counted_in_full(yard: Yard) -> None:
    """The budget may be overdrawn by what was really used, and refuses then."""
    await yard.window(slots=1)
    limits = Limits(tokens_per_day=100)
    name = await yard.ask("ann", prompt=10, answer=90, limits=limits)
    await yard.stream(name, 150)
    await yard.end(name)
    _, admission = await yard.enter("ann", prompt=1, answer=1, limits=limits)
    assert (admission.state, admission.budget.tokens_per_day) == ("limited", 160)


async def test_budgets_of_two_people_are_two(yard: Yard) -> None:
    """And one person's keys and engines share one."""
    for engine in ("a", "b"):
        await yard.window(engine, slots=9)
    limits = Limits(tokens_per_day=40)
    assert (await yard.enter("ann", engine="a", key="k1", limits=limits))[1].state == "running"
    assert (await yard.enter("ann", engine="b", key="k2", limits=limits))[1].state == "running"
    assert (await yard.enter("ann", engine="a", key="k3", limits=limits))[1].state == "limited"
    assert (await yard.enter("bob", engine="a", limits=limits))[1].state == "running"


async def test_the_largest_budgets_are_exact(yard: Yard) -> None:
    """Sums near the highest limit lose no token."""
    await yard.window(slots=9)
    most = 10**12
    limits = Limits(tokens_per_minute=most, tokens_per_day=most, tokens_per_month=most)
    _, admission = await yard.enter("ann", prompt=1, answer=most - 2, limits=limits)
    assert (admission.granted, admission.budget.tokens_per_month) == (most - 2, most - 1)
    assert (await yard.enter("ann", prompt=1, answer=1, limits=limits))[1].state == "limited"
    assert (await yard.enter("ann", prompt=1, answer=0, limits=limits))[1].state == "running"
    assert (await yard.ledger.budget("ann")).tokens_per_month == most


# Many at once.


@in_redis
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40), st.integers(0, 40), st.booleans()), max_size=25),
    st.sampled_from([1, 40, 100, 300]),
    st.sampled_from([None, 1, 4]),
)
async def test_however_many_come_at_once_no_window_is_exceeded(
    redis: Redis, requests: list[tuple[int, int, int, bool]], limit: int, count: int | None
) -> None:
    """What was admitted fits; who was refused would not have fit; and what is used in the end is what was streamed."""
    yard = Yard(redis)
    await yard.window(slots=4)
    limits = Limits(tokens_per_day=limit, requests_per_minute=count, queue_length_max=None)
    entered = await asyncio.gather(
        *(yard.enter("ann", prompt=prompt, answer=max(most, least), answer_min=least, limits=limits)
          for prompt, most, least, _ in requests)
    )  # fmt: skip
    admitted = _check_admitted(yard, entered, limit, count)
    used = 0
    while running := await yard.running():
        name = running[0]
        tokens = min(admitted[name].granted, int(name[1:]))
        await yard.stream(name, tokens)
        await yard.end(name)
        used += yard.entries[name].input_tokens + tokens
    budget = await yard.ledger.budget("ann")
    assert (budget.tokens_per_day, budget.requests_per_minute) == (used, len(admitted))


def _check_admitted(
    yard: Yard, entered: list[tuple[str, Admission]], limit: int, count: int | None
) -> dict[str, Admission]:
    """Those who entered, if they were the right ones; in the order in which Redis took them."""
    admitted: dict[str, Admission] = {}
    reserved = 0
    for name, admission in sorted(entered, key=lambda each: each[0]):
        entry = yard.entries[name]
        if admission.state == "limited":
            continue
        assert entry.output_tokens_min <= admission.granted <= entry.output_tokens_max
        admitted[name] = admission
        reserved += entry.input_tokens + admission.granted
        assert admission.budget.tokens_per_day <= limit
    assert reserved <= limit
    assert count is None or len(admitted) <= count
    for name, admission in entered:
        if admission.limit == "tokens_per_day":
            entry = yard.entries[name]
            assert entry.input_tokens + entry.output_tokens_min > limit - admission.budget.tokens_per_day
        assert name in admitted or admission.limit in {"tokens_per_day", "requests_per_minute"}
    return admitted


@pytest.mark.parametrize("running", [True, False])
async def test_a_budget_admits_exactly_as_many_as_it_holds(yard: Yard, running: bool) -> None:
    """Of fifty at once, from two replicas, ten times ten tokens fit into a hundred; the others are refused."""
    await yard.window(slots=50 * running)
    limits = Limits(tokens_per_minute=100, queue_length_max=None)
    entered = await asyncio.gather(
        *(yard.enter("ann", prompt=4, answer=6, limits=limits, replica=("one", "two")[at % 2]) for at in range(50))
    )
    states = [admission.state for _, admission in entered]
    assert states.count("running" if running else "queued") == 10
    assert states.count("limited") == 40
