"""The Lua scripts, in a real Redis and in virtual time, against the reference, whatever happens in whatever order."""

import os
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from quotas.ledger import Entry, Ledger, Progress
from quotas.policy import Limits
from quotas.window import Window
from tests.quotas.reference import LEASE_MS, Box

ENGINES = ("a", "b")
REPLICAS = ("one", "two")
FLOWS = ("ann", "bob", "cid")
NUMBERS = range(10)
# In full: WIRTHFORGE_TEST_EXAMPLES=5000.
EXAMPLES = int(os.environ.get("WIRTHFORGE_TEST_EXAMPLES", "100"))
BEGINNING_MS = 1_000_000_000

windows = st.builds(
    Window,
    slots=st.integers(0, 4),
    reserved_slots=st.integers(0, 2),
    prefill_tokens_max=st.sampled_from([0, 0, 30]),
    kv_tokens=st.sampled_from([0, 0, 120]),
    answer_tokens=st.integers(0, 40),
    sparse_cost_max=st.sampled_from([0, 40, 400]),
    books_whole_answers=st.booleans(),
    is_reserve_standing=st.booleans(),
    reserve_percent_max=st.sampled_from([0, 1, 30, 100]),
)
limits = st.builds(
    Limits,
    weight=st.sampled_from([1, 50, 100, 300]),
    in_flight_max=st.sampled_from([None, None, 1, 2]),
    queue_length_max=st.sampled_from([None, 1, 3]),
    requests_per_minute=st.sampled_from([None, None, 3]),
    tokens_per_minute=st.sampled_from([None, None, 100]),
    tokens_per_day=st.sampled_from([None, 300]),
    tokens_per_month=st.sampled_from([None, 400]),
)
numbers = st.sampled_from(NUMBERS)
replicas = st.sampled_from(REPLICAS)
enqueues = st.tuples(
    *(st.just("enqueue"), numbers, limits, replicas, st.sampled_from([2, 9, 9])),
    *(st.integers(0, 40), st.integers(0, 30), st.sampled_from([1, 1, 1, 2]), st.booleans()),
    st.booleans(),
)
charges = st.tuples(
    *(st.just("charge"), replicas),
    st.dictionaries(
        numbers, st.tuples(st.integers(0, 50), st.integers(-1, 3), st.sampled_from([True, True, False])), min_size=1
    ),
    st.booleans(),
)
STEPS = {
    "enqueue": enqueues,
    "charge": charges,
    "window": st.tuples(st.just("window"), st.sampled_from(ENGINES), windows),
    "finish": st.tuples(st.just("finish"), numbers, st.integers(0, 80), st.booleans()),
    "cancel": st.tuples(st.just("cancel"), numbers, st.booleans()),
    "requeue": st.tuples(
        *(st.just("requeue"), numbers, st.integers(0, 3), st.integers(0, 50), st.booleans(), st.booleans())
    ),
    "pass": st.tuples(st.just("pass"), st.sampled_from([1, 400, 2_000, LEASE_MS - 1, LEASE_MS, 45_000, 50_000_000])),
    # Replicas reap every second; those that do not report meanwhile are dead.
    "wait": st.tuples(st.just("wait"), st.integers(1, 7)),
}
# Entering comes up often, so that queues and leases exist for the other steps to act on.
OFTEN = (
    *(("enqueue",) * 10 + ("charge",) * 4 + ("finish",) * 3 + ("requeue",) * 3 + ("cancel",) * 2),
    *("window", "pass", "wait"),
)
steps = st.sampled_from(OFTEN).flatmap(STEPS.__getitem__)


def engine_of(number: int) -> str:
    """A request keeps its engine and its flow, as in life."""
    return ENGINES[number % 4 == 3]


def flow_of(number: int) -> str:
    """Whose request it is."""
    return FLOWS[number % 3]


class Pair:
    """The ledger and the reference, taking the same steps; where `is_lost` a reply was lost and the step repeated."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.box = uuid4().hex
        self.ledger = Ledger(redis, self.box, now_ms=BEGINNING_MS)
        self.reference = Box(now_ms=BEGINNING_MS)

    async def take(self, step: tuple[Any, ...]) -> None:  # noqa: C901 (one case for each step)
        """One step; both must answer alike."""
        ledger, reference = self.ledger, self.reference
        match step:
            case ("window", engine, window):
                reference.window(engine, window)
                await ledger.dispatch(engine, window)
            case ("enqueue", number, *drawn):
                await self._enqueue(number, *drawn)
            case ("finish", *drawn):
                await self._finish(*drawn)
            case ("cancel", number, is_lost):
                # Mostly of one that is there; else it came too late.
                name = ([*reference.requests, "gone"])[number % (len(reference.requests) + 1)]
                reference.cancel(name)
                for _ in range(1 + is_lost):
                    await ledger.cancel(name)
            case ("charge", *drawn):
                await self._charge(*drawn)
            case ("requeue", *drawn):
                await self._requeue(*drawn)
            case ("pass", duration_ms):
                reference.now_ms += duration_ms
                ledger.now_ms = reference.now_ms
            case ("wait", seconds):
                for _ in range(seconds):
                    await self.take(("pass", 1_000))
                    assert sorted(reference.reap()) == sorted(await ledger.reap())
            case _:
                raise AssertionError(step)

    async def _requeue(self, number: int, pause: int, tokens: int, moves: bool, is_lost: bool) -> None:
        """Mostly one that was told to; also one that nobody asked, one that is gone, and one that moves."""
        requests = self.reference.requests
        asked = [name for name, request in requests.items() if request.recalled == "paused"]
        running = [name for name, request in requests.items() if request.is_running]
        names = asked or running if pause else [*running, "gone"]
        if not names:
            return
        name = names[number % len(names)]
        known = requests.get(name)
        engine = known.entry.engine if known else "a"
        if moves:
            engine = ENGINES[engine == "a"]
            if engine not in self.reference.windows:
                await self.take(("window", engine, Window(slots=1)))
        which = (known.pauses if known else 0) + 1
        for _ in range(1 + is_lost):
            expected = self.reference.requeue(name, engine, which, tokens, 2 * tokens)
            found = await self.ledger.requeue(name, engine, pause=which, output_tokens=tokens, cost=2 * tokens)
            assert expected == found

    async def _finish(self, number: int, tokens: int, is_lost: bool) -> None:
        """Only requests that run, or are paused, are finished."""
        running = [name for name, each in self.reference.requests.items() if each.is_running or each.pauses]
        if running:
            name = running[number % len(running)]
            engine = self.reference.requests[name].entry.engine
            self.reference.finish(name, tokens + 1, 3 * tokens)
            event: dict[str, str | int] = {
                "id": name,
                "outcome": "completed",
                "input_tokens": tokens,
                "output_tokens": 1,
            }
            for _ in range(1 + is_lost):
                await self.ledger.finish(name, engine, event, cost=3 * tokens)

    async def _charge(self, replica: str, chosen: dict[int, tuple[int, int, bool]], is_lost: bool) -> None:
        progress = [(f"r{number}", out, first, out * 2, can) for number, (out, first, can) in chosen.items()]
        for _ in range(1 + is_lost):
            expected = self.reference.charge(replica, progress)
            found = await self.ledger.charge(replica, [Progress(*row) for row in progress])
            assert expected == found

    async def _enqueue(self, number: int, chosen: Limits, replica: str, length_max: int, *drawn: Any) -> None:
        input_tokens, output_tokens, answers, is_revocable, is_lost = drawn
        unused = [other for other in NUMBERS if f"r{other}" not in self.reference.requests]
        if unused and not is_lost:
            number = unused[number % len(unused)]
        engine = engine_of(number)
        if engine not in self.reference.windows:
            await self.take(("window", engine, Window(slots=1)))
        entry = Entry(
            id=f"r{number}",
            engine=engine,
            model="m",
            surface="chat.completions",
            user=flow_of(number),
            key="",
            input_tokens=input_tokens,
            started_at_ms=1,
            prompt_cost=input_tokens,
            output_tokens_max=output_tokens,
            output_tokens_min=output_tokens // 2,
            answers=answers,
            is_revocable=is_revocable,
        )
        for _ in range(1 + is_lost):
            expected = self.reference.enqueue(entry, chosen, replica, length_max)
            found = await self.ledger.enqueue(entry, chosen, replica=replica, queue_length_max=length_max)
            assert expected == found.state

    async def check(self) -> None:
        """Every list and every sum that matters is the same in both."""
        reference, prefix = self.reference, f"wf:{{{self.box}}}:"
        for engine in reference.windows:
            assert reference.queued(engine) == await self.redis.zrange(f"{prefix}queue:{engine}", 0, -1)
            running: Any = await self.redis.zrange(f"{prefix}running:{engine}", 0, -1, withscores=True)
            leases = {name: reference.requests[name] for name in reference.running(engine)}
            assert {name: lease.deadline_ms for name, lease in leases.items()} == dict(running)
            assert reference.ranking(engine) == await self.redis.zrange(f"{prefix}ranking:{engine}", 0, -1)
            live: Any = await self.redis.hgetall(f"{prefix}live:{engine}")
            assert int(live.get("slots", 0)) == sum(lease.entry.answers for lease in leases.values())
            assert int(live.get("prefill", 0)) == sum(lease.prefill for lease in leases.values())
            assert int(live.get("kv", 0)) == sum(lease.kv for lease in leases.values())
            reserve = reference.reserves[engine]
            assert (reserve.credit or 0, reserve.withheld) == (
                int(live.get("reserve_credit", 0)),
                int(live.get("withheld", 0)),
            )
            pausable = {name for name, lease in leases.items() if lease.is_pausable and not lease.recalled}
            assert pausable == set(await self.redis.zrange(f"{prefix}pausable:{engine}", 0, -1))
        for name, request in reference.requests.items():
            stored: Any = await self.redis.hgetall(f"{prefix}request:{name}")
            assert stored["engine"] == request.entry.engine
            assert int(stored.get("pauses", 0)) == request.pauses
            assert int(stored.get("paused_ms", 0)) == request.paused_ms
        for flow in FLOWS:
            await self._check_flow(flow, prefix)
        for replica in REPLICAS:
            go: Any = await self.redis.lrange(f"{prefix}go:{replica}", 0, -1)
            assert reference.go[replica] == go
        events: Any = await self.redis.xrange(f"{prefix}settled")
        assert set(reference.settled) == {fields["id"] for _, fields in events}

    async def _check_flow(self, flow: str, prefix: str) -> None:
        reference = self.reference
        stored: Any = await self.redis.hgetall(f"{prefix}flow:{flow}")
        for engine in reference.windows:
            assert reference.flows[flow].served[engine] == int(stored.get(f"served:{engine}", 0))
        assert reference.flows[flow].spent == int(stored.get("spent", 0))
        assert sorted(reference.holds(flow)) == sorted(await self.redis.smembers(f"{prefix}holds:{flow}"))
        budget: Any = await self.redis.hgetall(f"{prefix}budget:{flow}")
        minute = BEGINNING_MS and reference.now_ms // 60_000
        if budget.get("minute") == str(minute):
            names = reference.names_of_windows()
            assert reference.used[flow, "minute", names["minute"]] == int(budget["tokens_minute"])
            for window in ("minute", "day", "month"):
                assert reference.used[flow, window, names[window]] == int(budget[f"tokens_{window}"])
                assert reference.used[flow, "requests", names[window]] == int(budget[f"requests_{window}"])

    def is_work_conserving(self) -> bool:
        """Whether every engine for which somebody waits is as full as its window allows."""
        return all(
            self.reference.closed_gate(self.reference.own_queue(engine, ranking[0])[0]) is not None
            for engine in self.reference.windows
            if (ranking := self.reference.ranking(engine))
        )


# A hundred sequences take half a minute, on a busy machine several.
@pytest.mark.timeout(600)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, min_size=25, max_size=60))
async def test_the_scripts_do_what_the_reference_does(redis: Redis, taken: list[tuple[Any, ...]]) -> None:
    """Queues, leases, counters, gates, budgets, messages and events are as the reference has them, after every step."""
    pair = Pair(redis)
    for step in taken:
        await pair.take(step)
        await pair.check()
        # Time alone may open a gate (a guest is forgotten, a replica is found dead); the tick that follows uses it.
        if step[0] not in {"pass", "window"}:
            for engine, window in pair.reference.windows.items():
                pair.reference.window(engine, window)
                await pair.ledger.dispatch(engine, window)
            assert pair.is_work_conserving()
            await pair.check()
    assert len(set(pair.reference.settled)) <= len(NUMBERS)
