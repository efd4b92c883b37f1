"""The Lua scripts, in a real Redis and in virtual time, against the reference."""

from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from quotas.ledger import Entry, Ledger, Progress
from tests.quotas.reference import LEASE_MS, Reference

ENGINES = ("a", "b")
REPLICAS = ("one", "two")
REQUESTS = tuple(f"r{number}" for number in range(6))

engines = st.sampled_from((*ENGINES, "a", "a"))
replicas = st.sampled_from(REPLICAS)
requests = st.sampled_from(REQUESTS)
enqueues = st.tuples(st.just("enqueue"), requests, engines, replicas, st.sampled_from([1, 3, 9]))
# Entering comes up often, so that queues and leases exist for the other steps to act on.
steps = st.one_of(
    st.tuples(st.just("window"), engines, st.integers(0, 3)),
    *(enqueues, enqueues, enqueues),
    st.tuples(st.just("finish"), requests, engines),
    st.tuples(st.just("cancel"), requests, engines),
    st.tuples(st.just("charge"), replicas, st.lists(requests, unique=True, min_size=2)),
    st.tuples(st.just("pass"), st.sampled_from([1, 400, 2_000, LEASE_MS - 1, LEASE_MS, 60_000])),
    st.tuples(st.just("reap")),
)


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
    )


class Pair:
    """The ledger and the reference, taking the same steps."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.box = uuid4().hex
        self.ledger = Ledger(redis, self.box, now_ms=1_000_000)
        self.reference = Reference(now_ms=1_000_000)
        # A request keeps its engine, as in life.
        self.engine_of: dict[str, str] = {}

    async def take(self, step: tuple[Any, ...]) -> None:
        """One step; both must answer alike."""
        ledger, reference = self.ledger, self.reference
        match step:
            case ("window", engine, slots):
                reference.window(engine, slots)
                await ledger.dispatch(engine, slots)
            case ("enqueue", request, engine, replica, length_max):
                engine = self.engine_of.setdefault(request, engine)
                expected = reference.enqueue(request, engine, replica, length_max)
                found = await ledger.enqueue(entry(request, engine), replica=replica, queue_length_max=length_max)
                assert expected == found.state
            case ("finish", request, engine):
                # Only requests that run are finished.
                engine = self.engine_of.get(request, engine)
                if request in reference.deadlines[engine]:
                    reference.finish(request, engine)
                    await ledger.finish(request, engine, {"id": request})
            case ("cancel", request, engine):
                engine = self.engine_of.get(request, engine)
                reference.cancel(request, engine)
                await ledger.cancel(request, engine)
            case ("charge", replica, chosen):
                facts = reference.charge(replica, chosen)
                assert facts == await ledger.charge(replica, [Progress(request, 1, -1) for request in chosen])
            case ("pass", duration_ms):
                reference.now_ms += duration_ms
                ledger.now_ms = reference.now_ms
            case ("reap",):
                assert sorted(reference.reap()) == sorted(await ledger.reap())
            case _:
                raise AssertionError(step)

    async def check(self) -> None:
        """Every list that matters is the same in both."""
        prefix = f"wf:{{{self.box}}}:"
        for engine in ENGINES:
            assert self.reference.queues[engine] == await self.redis.zrange(f"{prefix}queue:{engine}", 0, -1)
            running: Any = await self.redis.zrange(f"{prefix}running:{engine}", 0, -1, withscores=True)
            assert self.reference.deadlines[engine] == {request: int(deadline) for request, deadline in running}
        for replica in REPLICAS:
            go: Any = await self.redis.lrange(f"{prefix}go:{replica}", 0, -1)
            assert self.reference.go[replica] == go
        events: Any = await self.redis.xrange(f"{prefix}settled")
        assert sorted(self.reference.settled) == sorted(fields["id"] for _, fields in events)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, min_size=12, max_size=50))
async def test_the_scripts_do_what_the_reference_does(redis: Redis, taken: list[tuple[Any, ...]]) -> None:
    """Whatever happens in whatever order, queue, leases, messages and events are as the reference has them."""
    pair = Pair(redis)
    for step in taken:
        await pair.take(step)
        await pair.check()


async def test_who_comes_first_is_served_first(ledger: Ledger) -> None:
    """With one slot, requests run in the order in which they came, across replicas."""
    await ledger.dispatch("a", 1)
    states = [
        (await ledger.enqueue(entry(f"r{number}"), replica=REPLICAS[number % 2], queue_length_max=10)).state
        for number in range(4)
    ]
    assert states == ["running", "queued", "queued", "queued"]
    served = []
    for number in range(3):
        await ledger.finish(f"r{number}", "a", {"id": f"r{number}"})
        served.append(await ledger.granted(REPLICAS[(number + 1) % 2], wait_ms=100))
    assert served == ["r1", "r2", "r3"]


async def test_position_is_told(ledger: Ledger) -> None:
    """A queued request learns how many are before it."""
    await ledger.dispatch("a", 1)
    ahead = [
        (await ledger.enqueue(entry(f"r{number}"), replica="one", queue_length_max=10)).ahead for number in range(4)
    ]
    assert ahead == [0, 0, 1, 2]


async def test_a_request_entered_twice_counts_once(ledger: Ledger) -> None:
    """After a lost reply the same call tells the same thing and does nothing more."""
    await ledger.dispatch("a", 1)
    for _ in range(3):
        admission = await ledger.enqueue(entry("r0"), replica="one", queue_length_max=10)
        assert admission.state == "running"
    assert await ledger.load("a") == (1, 0)


async def test_a_dead_replica_frees_its_slot_and_leaves_its_usage(ledger: Ledger, redis: Redis) -> None:
    """What was charged before the death is what is settled, once."""
    ledger.now_ms = 10_000
    await ledger.reap()
    await ledger.dispatch("a", 1)
    await ledger.enqueue(entry("r0"), replica="one", queue_length_max=10)
    await ledger.enqueue(entry("r1"), replica="two", queue_length_max=10)
    await ledger.charge("one", [Progress("r0", 42, 120)])
    for _ in range(6):
        ledger.now_ms += 1_000
        await ledger.charge("two", [Progress("r1", 0, -1)])
        await ledger.reap()
    assert await ledger.granted("two", wait_ms=100) == "r1"
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
    await ledger.dispatch("a", 1)
    await ledger.reap()
    await ledger.enqueue(entry("r0"), replica="one", queue_length_max=10)
    ledger.now_ms = 500_000
    assert await ledger.reap() == []
    ledger.now_ms += 1_000
    assert await ledger.charge("one", [Progress("r0", 1, -1)]) == [("r0", "running")]
    ledger.now_ms += 4_500
    assert await ledger.reap() == []
    assert await ledger.load("a") == (1, 0)


async def test_a_stream_that_outlived_redis_state_gets_its_lease_back(ledger: Ledger, redis: Redis) -> None:
    """After a loss of state the stream is entered as running, even if that overfills the window for a while."""
    await ledger.dispatch("a", 1)
    await ledger.enqueue(entry("r0"), replica="one", queue_length_max=10)
    await redis.flushdb()
    assert await ledger.charge("one", [Progress("r0", 5, 10)]) == [("r0", "missing")]
    await ledger.dispatch("a", 1)
    await ledger.enqueue(entry("r0"), replica="one", queue_length_max=10, running=True)
    waiting = await ledger.enqueue(entry("r1"), replica="one", queue_length_max=10)
    assert waiting.state == "queued"
    assert await ledger.load("a") == (1, 1)


async def test_redis_tells_the_time_in_production(redis: Redis) -> None:
    """Without virtual time the deadline of a lease lies ahead of Redis' own clock."""
    ledger = Ledger(redis)
    await ledger.dispatch("a", 1)
    await ledger.enqueue(entry("r0"), replica="one", queue_length_max=10)
    seconds, microseconds = await redis.time()
    deadline_ms = await redis.zscore("wf:{box}:running:a", "r0")
    assert deadline_ms is not None
    assert 0 < deadline_ms - (seconds * 1000 + microseconds // 1000) <= LEASE_MS
