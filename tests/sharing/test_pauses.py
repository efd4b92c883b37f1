"""Pauses at the gate: whatever comes in whatever order, each request ends once, and nothing stays behind."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisAway

from quotas.ledger import Requeued
from server.clock import SystemClock
from server.errors import WirthforgeError
from server.settings import Settings
from server.sharing import gate as gates
from server.sharing.gate import Gate
from server.sharing.lease import Lease
from tests.quotas.reference import ALIVE_MS
from tests.sharing.replicas import BEGINNING_MS, ENGINE, House, asking, entry

SLOTS, PAUSES_MAX = 2, 3
ROUND_MS = 6
# In full: WIRTHFORGE_TEST_EXAMPLES=500.
EXAMPLES = int(os.environ.get("WIRTHFORGE_TEST_EXAMPLES", "20"))


class Actor:
    """A request, as the pipeline runs it: it asks for a slot, gives it up when it is told to, and waits for another."""

    def __init__(self, gate: Gate, name: str, user: str) -> None:
        self.name = name
        self.lease: Lease | None = None
        self.can_go_on = True
        self._gate = gate
        self._over, self._taken = asyncio.Event(), asyncio.Event()
        self._requeued: asyncio.Task[None] | None = None
        self.task = asyncio.create_task(self._run(user))

    async def _run(self, user: str) -> None:
        lease = self.lease = await self._gate.admit(asking(entry(self.name, user=user)))
        lease.can_go_on = lambda: self.can_go_on
        try:
            while await self._interrupted(lease):
                assert self._requeued is not None
                await self._requeued
                self._requeued = None
            lease.settle("failed" if lease.taken else "completed")
        except WirthforgeError:
            lease.settle("failed")
        finally:
            if self._requeued is not None:
                self._requeued.cancel()
            lease.settle("cancelled")

    async def _interrupted(self, lease: Lease) -> bool:
        """Whether it has to wait for another slot; else it is over."""
        self._taken.clear()
        lease.on_taken = self._interrupt
        over, taken = (asyncio.create_task(event.wait()) for event in (self._over, self._taken))
        try:
            await asyncio.wait([over, taken], return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            taken.cancel()
        return self._requeued is not None

    def _interrupt(self) -> None:
        assert self.lease is not None
        if self.lease.taken == "paused":
            self._requeued = asyncio.create_task(self._gate.requeue(self.lease, ENGINE))
        self._taken.set()

    def grow(self) -> None:
        """Write some tokens, if it has a slot."""
        if self.lease is not None and self._requeued is None:
            self.lease.output_tokens += 3
            self.lease.see_first_token()

    def end(self) -> None:
        """Come to its end, as soon as it has a slot."""
        self._over.set()


class Play:
    """Two replicas on one ledger, whose time passes when the play says so."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.actors: list[Actor] = []
        self.lost_replies = 0
        self._requeue = house.ledger.requeue
        house.ledger.requeue = self._unsure_requeue  # type: ignore[method-assign]

    async def _unsure_requeue(self, *args: Any, **named: Any) -> Requeued:
        lost, self.lost_replies = self.lost_replies, 0
        if lost > 1:
            raise RedisAway  # it never came
        state = await self._requeue(*args, **named)
        if lost:
            raise RedisAway  # its reply did not
        return state

    async def take(self, step: tuple[Any, ...]) -> None:
        """One step."""
        kind, number, *more = step
        actor = self.actors[number % len(self.actors)] if self.actors else None
        match kind:
            case "ask":
                gate = list(self.house.gates.values())[more[1]]
                self.actors.append(Actor(gate, f"r{len(self.actors)}", f"user{more[0]}"))
            case "grow":
                for each in self.actors:
                    each.grow()
            case "end" if actor is not None:
                actor.end()
            case "leave" if actor is not None:
                actor.task.cancel()
            case "decline" if actor is not None:
                actor.can_go_on = not actor.can_go_on
            case "lose":
                self.lost_replies = 1 + number % 2
            case _:
                pass
        await self.pass_ms(more[-1] if kind == "pass" else 0)

    async def pass_ms(self, duration_ms: int) -> None:
        """Let the ledger's time pass in steps, each of which every replica reports in."""
        redis, ledger = cast("Any", self.house.redis), self.house.ledger
        for _ in range(max(duration_ms // 500, 1)):
            assert ledger.now_ms is not None
            ledger.now_ms += max(min(duration_ms, 500), 1)
            async with asyncio.timeout(20):
                for name in self.house.running:
                    while (await redis.zscore("wf:{box}:alive", name) or 0) < ledger.now_ms + ALIVE_MS:
                        await self.house.clock.sleep_ms(1)

    async def finish(self) -> None:
        """Let everybody come to an end, one slot after the other."""
        for actor in self.actors:
            actor.end()
        async with asyncio.timeout(20):
            await asyncio.gather(*(actor.task for actor in self.actors), return_exceptions=True)
        await self.house.load(0, 0)
        async with asyncio.timeout(5):
            while await self.house.leftovers():
                await self.house.clock.sleep_ms(ROUND_MS)

    async def check(self) -> None:
        """Each request that had a slot was settled once; nothing of any is left anywhere."""
        events = [event["id"] for event in await self.house.events()]
        ran = [actor.name for actor in self.actors if actor.lease is not None]
        assert sorted(events) == sorted(ran)
        for gate in self.house.gates.values():
            assert not gate._leases
            assert not gate._waiting
        assert all(actor.lease.pauses <= PAUSES_MAX for actor in self.actors if actor.lease is not None)
        redis = cast("Any", self.house.redis)
        for key in (f"pausable:{ENGINE}", f"recalled:{ENGINE}", f"revocable:{ENGINE}"):
            assert not await redis.exists(f"wf:{{box}}:{key}")
        live = await redis.hmget(f"wf:{{box}}:live:{ENGINE}", "slots", "prefill", "kv")
        assert {int(each or 0) for each in live} == {0}


@asynccontextmanager
async def play_of(redis: Redis) -> AsyncIterator[Play]:
    """On an empty Redis."""
    await redis.flushdb()
    house = House(redis, Settings(redis_grace_ms=2_000, pauses_max=PAUSES_MAX), SystemClock(), BEGINNING_MS)
    for name in ("one", "two"):
        house.replica(name, SLOTS)
    play = Play(house)
    try:
        yield play
    finally:
        for actor in play.actors:
            actor.task.cancel()
        await asyncio.gather(*(actor.task for actor in play.actors), return_exceptions=True)
        await house.close()


@pytest.fixture(scope="module", autouse=True)
def hurried() -> Any:
    """Gates that report all the time."""
    with pytest.MonkeyPatch.context() as patch:
        for name, ms in {"REPORT_MS": 2, "IDLE_REPORT_MS": 2, "TEND_MS": 4, "LISTEN_MS": 50, "RETRY_MS": 2}.items():
            patch.setattr(gates, name, ms)
        yield


numbers = st.integers(0, 9)
STEPS = (
    *[st.tuples(st.just("ask"), numbers, st.sampled_from([0, 0, 0, 1, 2]), st.integers(0, 1))] * 3,
    *[st.tuples(st.just("grow"), numbers)] * 4,
    *(st.tuples(st.just(kind), numbers) for kind in ("end", "leave", "decline", "lose")),
    *[st.tuples(st.just("pass"), numbers, st.sampled_from([500, 1_000, 2_000]))] * 2,
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(*STEPS), min_size=10, max_size=40))
async def test_every_request_ends_once(redis: Redis, steps: list[tuple[Any, ...]]) -> None:
    """News of pauses, ends, clients who leave, answers that cannot go on after all, and replies that are lost."""
    async with play_of(redis) as play:
        for step in steps:
            await play.take(step)
        await play.finish()
        await play.check()


async def test_nobody_is_paused_for_ever(redis: Redis) -> None:
    """Guests come without end: each answer is paused as often as the bound allows, and then comes to its end."""
    async with play_of(redis) as play:
        for _ in range(SLOTS):
            await play.take(("ask", 0, 0, 0))
        for guest in range(1, 3 * SLOTS * PAUSES_MAX):
            await play.take(("grow", 0))
            await play.take(("ask", 0, guest, 1))
            await play.take(("pass", 0, 1_000))
            play.actors[-1].end()
            await play.take(("pass", 0, 500))
        hogs = [actor.lease for actor in play.actors[:SLOTS]]
        assert [lease.pauses for lease in hogs if lease is not None] == [PAUSES_MAX] * SLOTS
        await play.finish()
        await play.check()


async def test_a_dead_replicas_paused_answer_is_settled_by_another(redis: Redis) -> None:
    """Once, as abandoned, with what was written and how long it was paused."""
    async with play_of(redis) as play:
        house = play.house
        for _ in range(SLOTS):
            await play.take(("ask", 0, 0, 0))
        await play.take(("grow", 0))
        await play.take(("pass", 0, 500))
        await play.take(("ask", 0, 1, 1))
        await play.take(("pass", 0, 1_000))
        paused = next(actor for actor in play.actors if actor.lease is not None and actor.lease.pauses)
        await house.load(SLOTS, 1)
        await house.cut_off("one")
        await play.pass_ms(8_000)
        play.actors[-1].end()
        await house.load(0, 0)
        events = {event["id"]: event for event in await house.events()}
        assert len(await house.events()) == SLOTS + 1
        assert events[paused.name]["outcome"] == "abandoned"
        assert (events[paused.name]["output_tokens"], events[paused.name]["pauses"]) == ("3", "1")
        assert int(events[paused.name]["paused_ms"]) > 1_000
        assert not await house.leftovers()
