"""What the reserve may cost: slots are kept from a credit, and not without; in scenes."""

import pytest
from redis.asyncio import Redis

from tests.quotas.yard import Yard

QUANTUM = 100
HEAVY = 500
SLOTS = 4


@pytest.fixture
def yard(redis: Redis) -> Yard:
    """A box."""
    return Yard(redis)


async def crowd(yard: Yard, percent_max: int) -> None:
    """A light user was here, and a heavy one wants every slot."""
    await yard.window(slots=SLOTS, reserved_slots=1, reserve_percent_max=percent_max, sparse_cost_max=QUANTUM)
    await yard.end(await yard.ask("guest"))
    for _ in range(SLOTS + 1):
        await yard.ask("heavy", prompt=HEAVY)


async def test_a_slot_is_kept_as_long_as_the_credit_lasts(yard: Yard) -> None:
    """Of four slots a tenth, saved for a minute: one slot idles for 40 s, since the credit also grows meanwhile."""
    await crowd(yard, 10)
    assert len(await yard.running()) == SLOTS - 1
    await yard.pass_ms(38_000)
    assert len(await yard.running()) == SLOTS - 1
    await yard.pass_ms(4_000)
    assert len(await yard.running()) == SLOTS


async def test_the_credit_comes_back_with_time(yard: Yard) -> None:
    """After the slot was given away it is kept again, for as long as was saved since."""
    await crowd(yard, 10)
    await yard.pass_ms(42_000)
    assert len(await yard.running()) == SLOTS
    await yard.pass_ms(30_000)
    await yard.end((await yard.running())[0])
    assert len(await yard.running()) == SLOTS - 1
    # 30 s saved 40 parts a millisecond; it is spent at 60.
    await yard.pass_ms(16_000)
    assert len(await yard.running()) == SLOTS - 1
    await yard.pass_ms(6_000)
    assert len(await yard.running()) == SLOTS


@pytest.mark.parametrize(("percent_max", "kept"), [(0, 0), (100, 1)])
async def test_the_bounds_of_the_credit(yard: Yard, percent_max: int, kept: int) -> None:
    """At 0 nothing is kept, at 100 a slot for as long as light users are remembered."""
    await crowd(yard, percent_max)
    for _ in range(5):
        assert len(await yard.running()) == SLOTS - kept
        await yard.pass_ms(60_000)


async def test_only_time_with_a_free_slot_and_a_queue_is_paid_for(yard: Yard) -> None:
    """While nobody waits nothing is withheld, and the credit stays whole."""
    await yard.window(slots=SLOTS, reserved_slots=1, reserve_percent_max=10, sparse_cost_max=QUANTUM)
    await yard.end(await yard.ask("guest"))
    for _ in range(SLOTS - 1):
        await yard.ask("heavy", prompt=HEAVY)
    await yard.pass_ms(120_000)
    await yard.ask("heavy", prompt=HEAVY)
    await yard.pass_ms(38_000)
    assert len(await yard.running()) == SLOTS - 1
    await yard.pass_ms(4_000)
    assert len(await yard.running()) == SLOTS
