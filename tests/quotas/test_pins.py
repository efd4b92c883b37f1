"""Pins: no request may reuse a slot in which anybody else's prompt could lie, whatever happens in between."""

from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from quotas.ledger import Ledger

SLOTS = 3
PLACE = "127.0.0.1:8080"
DAY_S = 86_400


@dataclass
class Box:
    """A ledger of its own, and the keys by which it knows that requests live."""

    redis: Redis
    name: str = field(default_factory=lambda: uuid4().hex[:8])

    def __post_init__(self) -> None:
        self.prefix = f"wf:{{{self.name}}}:"
        self.ledger = Ledger(self.redis, self.name, now_ms=1_000)

    async def begin(self, request: str, salt: str, slots: int = SLOTS) -> tuple[int, bool]:
        """A request that lives asks for a slot."""
        await self.redis.hset(f"{self.prefix}request:{request}", "state", "running")
        return await self.ledger.pin(PLACE, request, salt, slots)

    async def read(self, request: str, salt: str, slot: int) -> None:
        """Its prompt is in the slot."""
        await self.ledger.own(PLACE, request, salt, slot)

    async def end(self, request: str) -> None:
        """It is gone."""
        await self.redis.delete(f"{self.prefix}request:{request}")


async def served(box: Box, request: str, salt: str) -> tuple[int, bool]:
    """A whole request."""
    slot, is_own = await box.begin(request, salt)
    await box.read(request, salt, slot)
    await box.end(request)
    return slot, is_own


async def test_ones_own_slot_comes_back(redis: Redis) -> None:
    """The second request of one person finds the slot of the first, and another person does not."""
    box = Box(redis)
    first, is_own = await served(box, "1", "ann")
    assert not is_own
    other, is_own = await served(box, "2", "ben")
    assert (other != first, is_own) == (True, False)
    assert await served(box, "3", "ann") == (first, True)


async def test_the_slot_used_longest_ago_changes_hands(redis: Redis) -> None:
    """And is nobody's until the new prompt is in it."""
    box = Box(redis)
    slots = [(await served(box, name, name))[0] for name in ("a", "b", "c")]
    assert sorted(slots) == [0, 1, 2]
    slot, is_own = await box.begin("d", "d")
    assert (slot, is_own) == (slots[0], False)
    await box.end("d")  # before the engine has read anything
    assert (await box.begin("again", "d"))[1] is False
    assert (await box.begin("a2", "a"))[1] is False


async def test_a_request_that_may_land_anywhere_clears_all(redis: Redis) -> None:
    """While it lives and for two seconds longer, nothing is anybody's own; nor what was read meanwhile."""
    box = Box(redis)
    await served(box, "1", "ann")
    assert await box.begin("loose", "") == (-1, False)
    assert (await served(box, "2", "ann"))[1] is False
    assert (await served(box, "3", "ann"))[1] is False
    await box.end("loose")
    assert (await served(box, "4", "ann"))[1] is False
    box.ledger.now_ms = 3_001
    assert (await served(box, "5", "ann"))[1] is False
    assert (await served(box, "6", "ann"))[1] is True


async def test_it_waits_for_those_that_read(redis: Redis) -> None:
    """Who was told to reuse a slot has read it before anybody else can get there; a reader that dies is not awaited."""
    box = Box(redis)
    await served(box, "1", "ann")
    slot, is_own = await box.begin("2", "ann")
    assert is_own
    assert await box.begin("loose", "") == (-2, False)
    assert (await box.begin("3", "ann"))[1] is False  # no new reader meanwhile
    await box.read("2", "ann", slot)
    assert await box.begin("loose", "") == (-1, False)
    other = Box(redis)
    await served(other, "1", "ann")
    await other.begin("2", "ann")
    await other.end("2")
    assert await other.begin("loose", "") == (-1, False)


async def test_where_all_slots_are_held_a_request_is_loose(redis: Redis) -> None:
    """A request more than there are slots, and an engine that does not tell its slots."""
    box = Box(redis)
    for number in range(SLOTS):
        slot, _ = await box.begin(str(number), "ann")
        await box.read(str(number), "ann", slot)
    assert await box.begin("more", "ben") == (-1, False)
    assert await Box(redis).begin("none", "ben", slots=0) == (-1, False)


async def test_pins_of_another_redis_are_worth_nothing(redis: Redis) -> None:
    """What a Redis says that was restarted, or restored, may be older than what lies in the slots."""
    box = Box(redis)
    await served(box, "1", "ann")
    await redis.hset(f"{box.prefix}pins:{PLACE}", "run", "another")
    assert (await served(box, "2", "ann"))[1] is False
    assert 0 < await redis.ttl(f"{box.prefix}pins:{PLACE}") <= DAY_S


STEP = st.one_of(
    st.tuples(st.just("begin"), st.sampled_from(["ann", "ben", "cat", ""])),
    st.tuples(st.just("land"), st.integers(0, 9)),
    st.tuples(st.just("confirm"), st.integers(0, 9)),
    st.tuples(st.just("end"), st.integers(0, 9)),
    st.tuples(st.just("pass"), st.sampled_from([500, 2_500])),
)


@dataclass
class Running:
    """A request in the model."""

    name: str
    person: str
    slot: int
    is_own: bool
    is_pinned: bool
    has_landed: bool = False
    is_confirmed: bool = False


def land(chosen: Running, running: list[Running], holds: dict[int, str], anywhere: Random) -> None:
    """It gets to a slot, its own or any that is idle, unless it has to be deferred."""
    busy = {each.slot for each in running if each.has_landed}
    free = [slot for slot in range(SLOTS) if slot not in busy]
    if not chosen.is_pinned and free:
        chosen.slot = anywhere.choice(free)
    elif chosen.slot in busy or not chosen.is_pinned:
        return
    if chosen.is_own:
        assert holds.get(chosen.slot) == chosen.person
    holds[chosen.slot] = chosen.person
    chosen.has_landed = True


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=40), anywhere=st.randoms(use_true_random=False))
async def test_nobody_reads_what_somebody_else_left(
    redis: Redis, steps: list[tuple[str, Any]], anywhere: Random
) -> None:
    """Against an engine that is only its slots: what a reader finds is its own person's, in any order of events.

    A request lands after it was sent, and what the engine does not know a slot for lands wherever none is busy.
    """
    box, holds, running = Box(redis), dict[int, str](), list[Running]()
    for number, (step, what) in enumerate(steps):
        chosen = running[what % len(running)] if running and isinstance(what, int) else None
        if step == "begin":
            slot, is_own = await box.begin(str(number), what)
            assert (slot >= 0) or not is_own
            if slot == -2:
                await box.end(str(number))
                continue
            # Nobody else has this slot.
            assert slot < 0 or slot not in {each.slot for each in running if each.is_pinned}
            running.append(Running(str(number), what or "loose", slot, is_own, slot >= 0))
        elif step == "land" and chosen is not None and not chosen.has_landed:
            land(chosen, running, holds, anywhere)
        elif step == "confirm" and chosen is not None and chosen.has_landed and not chosen.is_confirmed:
            chosen.is_confirmed = True
            if chosen.is_pinned:
                await box.read(chosen.name, chosen.person, chosen.slot)
        elif step == "end" and chosen is not None:
            running.remove(chosen)
            await box.end(chosen.name)
        elif step == "pass":
            box.ledger.now_ms = (box.ledger.now_ms or 0) + what
