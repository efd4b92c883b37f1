"""The Lua scripts, one rule at a time, in a real Redis and in virtual time."""

from typing import Any

from redis.asyncio import Redis

from quotas.ledger import Admission, Entry, Ledger, Progress
from quotas.policy import Limits
from quotas.window import Window
from tests.quotas.reference import LEASE_MS

REPLICAS = ("one", "two")


def entry(request: str, engine: str = "a", user: str = "ann") -> Entry:
    """A request that asks for ten tokens."""
    return Entry(
        id=request,
        engine=engine,
        model="m",
        surface="chat.completions",
        user=user,
        key="",
        input_tokens=10,
        started_at_ms=1,
        prompt_cost=10,
        output_tokens_max=20,
        output_tokens_min=20,
    )


async def enter(ledger: Ledger, request: str, *, replica: str = "one", user: str = "ann") -> Admission:
    """Enter a request of somebody without limits."""
    return await ledger.enqueue(entry(request, user=user), Limits(), replica=replica, queue_length_max=10)


def ended(request: str) -> dict[str, str | int]:
    """The event of a request that did as it said."""
    return {"id": request, "outcome": "completed", "input_tokens": 10, "output_tokens": 20}


async def test_who_comes_first_is_served_first(ledger: Ledger) -> None:
    """With one slot, requests run in the order in which they came, across replicas."""
    await ledger.dispatch("a", Window(slots=1))
    states = [(await enter(ledger, f"r{number}", replica=REPLICAS[number % 2])).state for number in range(4)]
    assert states == ["running", "queued", "queued", "queued"]
    served = []
    for number in range(3):
        await ledger.finish(f"r{number}", "a", ended(f"r{number}"), cost=50)
        served.append(await ledger.news(REPLICAS[(number + 1) % 2], wait_ms=100))
    assert served == [("run", "r1"), ("run", "r2"), ("run", "r3")]


async def test_a_request_entered_twice_counts_once(ledger: Ledger) -> None:
    """After a lost reply the same call tells the same thing and does nothing more."""
    await ledger.dispatch("a", Window(slots=1))
    for _ in range(3):
        admission = await enter(ledger, "r0", replica="one")
        assert admission.state == "running"
    assert await ledger.load("a") == (1, 0)


async def test_a_dead_replica_frees_its_slot_and_leaves_its_usage(ledger: Ledger, redis: Redis) -> None:
    """What was charged before the death is what is settled, once."""
    ledger.now_ms = 10_000
    await ledger.reap()
    await ledger.dispatch("a", Window(slots=1))
    await enter(ledger, "r0", replica="one")
    await enter(ledger, "r1", replica="two")
    await ledger.charge("one", [Progress("r0", 42, 120)])
    for _ in range(6):
        ledger.now_ms += 1_000
        await ledger.charge("two", [Progress("r1", 0, -1)])
        await ledger.reap()
    assert await ledger.news("two", wait_ms=100) == ("run", "r1")
    events: Any = await redis.xrange("wf:{box}:settled")
    assert len(events) == 1
    fields = events[0][1]
    assert fields["outcome"] == "abandoned"
    assert (fields["id"], fields["user"], fields["output_tokens"], fields["first_token_ms"]) == (
        *("r0", "ann", "42", "120"),
    )
    assert int(fields["total_ms"]) >= LEASE_MS
    assert await ledger.charge("one", [Progress("r0", 43, 120)]) == [("r0", "lost")]


async def test_a_pause_of_everybody_costs_nobody_a_lease(ledger: Ledger) -> None:
    """After an outage of Redis, leases are judged only once their owners had time to come back."""
    await ledger.dispatch("a", Window(slots=1))
    await ledger.reap()
    await enter(ledger, "r0", replica="one")
    ledger.now_ms = 500_000
    assert await ledger.reap() == []
    ledger.now_ms += 1_000
    assert await ledger.charge("one", [Progress("r0", 1, -1)]) == [("r0", "running")]
    ledger.now_ms += 4_500
    assert await ledger.reap() == []
    assert await ledger.load("a") == (1, 0)


async def test_a_stream_that_outlived_redis_state_gets_its_lease_back(ledger: Ledger, redis: Redis) -> None:
    """After a loss of state the stream is entered as running, even if that overfills the window for a while."""
    await ledger.dispatch("a", Window(slots=1))
    await enter(ledger, "r0", replica="one")
    await redis.flushdb()
    assert await ledger.charge("one", [Progress("r0", 5, 10)]) == [("r0", "missing")]
    await ledger.dispatch("a", Window(slots=1))
    await ledger.enqueue(entry("r0"), Limits(), replica="one", queue_length_max=10, enters="running")
    waiting = await enter(ledger, "r1", replica="one")
    assert waiting.state == "queued"
    assert await ledger.load("a") == (1, 1)


async def test_redis_tells_the_time_in_production(redis: Redis) -> None:
    """Without virtual time the deadline of a lease lies ahead of Redis' own clock."""
    ledger = Ledger(redis)
    await ledger.dispatch("a", Window(slots=1))
    await enter(ledger, "r0", replica="one")
    seconds, microseconds = await redis.time()
    deadline_ms = await redis.zscore("wf:{box}:running:a", "r0")
    assert deadline_ms is not None
    assert 0 < deadline_ms - (seconds * 1000 + microseconds // 1000) <= LEASE_MS
