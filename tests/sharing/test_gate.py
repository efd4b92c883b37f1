"""The gate: two replicas on one Redis. No slot is lost, none is given twice, whoever dies or leaves whenever."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from quotas.ledger import Entry
from quotas.window import Window
from server.errors import Unavailable
from server.settings import Settings
from server.sharing.gate import LISTEN_MS, TEND_MS, Gate
from server.sharing.lease import Lease
from tests.quotas.reference import LEASE_MS
from tests.sharing.replicas import ENGINE, House, VirtualHouse, asking, entry, house_of, virtual_house_of


@pytest.fixture
async def house(redis: Redis) -> AsyncIterator[House]:
    """A house in real time."""
    async with house_of(redis, Settings(queue_wait_ms_max=20_000, redis_grace_ms=300)) as house:
        yield house


@pytest.fixture
async def virtual(redis: Redis) -> AsyncIterator[VirtualHouse]:
    """A house in virtual time."""
    async with virtual_house_of(redis, Settings(queue_wait_ms_max=20_000)) as house:
        yield house


async def queue_up(house: House, gates: list[Gate], count: int) -> list[asyncio.Task[Lease]]:
    """So many requests of one person, the first in the only slot, in a certain order, from all replicas in turn."""
    visits = []
    for number in range(count):
        visits.append(asyncio.create_task(gates[number % len(gates)].admit(asking(entry(f"r{number}", user="ann")))))
        await house.load(1, number)
    return visits


async def test_who_comes_first_is_served_first_by_all_replicas(house: House) -> None:
    """One order of one person's requests for all replicas; those that leave while they wait are passed over."""
    gates = [house.replica("one", 1), house.replica("two", 1)]
    visits = await queue_up(house, gates, 8)
    for left in (3, 6):
        visits[left].cancel()
    await house.load(1, 5)
    served = []
    for number in (0, 1, 2, 4, 5, 7):
        lease = await asyncio.wait_for(visits[number], 5)
        served.append(lease.entry.id)
        assert not any(task.done() for task in visits[number + 1 :] if not task.cancelled())
        lease.settle("completed")
    await house.load(0, 0)
    assert [event["id"] for event in await house.events()] == served
    assert await house.leftovers() == []


async def _visit(gate: Gate, request: Entry, chance: random.Random, admitted: list[str], house: House) -> None:
    await house.clock.sleep_ms(chance.randrange(10))
    lease = await gate.admit(asking(request))
    admitted.append(request.id)
    try:
        assert len(house.inside) < 3  # type: ignore[attr-defined]
        house.inside.add(request.id)  # type: ignore[attr-defined]
        await house.clock.sleep_ms(chance.randrange(6))
        lease.settle("completed")
    finally:
        lease.settle("cancelled")
        house.inside.discard(request.id)  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(12))
async def test_no_slot_taken_whoever_leaves_whenever(house: House, seed: int) -> None:
    """Random comings and goings on two replicas: never more than three inside, and in the end nothing is left."""
    chance = random.Random(seed)  # noqa: S311 (a schedule, no secret)
    house.inside = set()  # type: ignore[attr-defined]
    gates = [house.replica("one", 3), house.replica("two", 3)]
    admitted: list[str] = []
    visits = [
        asyncio.create_task(_visit(chance.choice(gates), entry(), random.Random(chance.random()), admitted, house))  # noqa: S311
        for _ in range(60)
    ]
    while any(not visit.done() for visit in visits):
        await house.clock.sleep_ms(chance.randrange(3))
        if (waiting := [visit for visit in visits if not visit.done()]) and chance.random() < 0.6:
            chance.choice(waiting).cancel()
    for visit in visits:
        assert visit.cancelled() or visit.exception() is None
    await house.load(0, 0)
    assert await house.leftovers() == []
    assert sorted(event["id"] for event in await house.events()) == sorted(admitted)


@pytest.mark.parametrize("yields", range(12))
async def test_leaving_in_the_moment_of_the_grant_passes_the_slot_on(house: House, yields: int) -> None:
    """However far the news of the turn has come when the caller leaves, the next one gets the slot."""
    gates = [house.replica("one", 1), house.replica("two", 1)]
    first, second, third = await queue_up(house, gates, 3)
    (await first).settle("completed")
    for _ in range(yields * 40):
        await asyncio.wait([asyncio.create_task(_nothing())])
    second.cancel()
    await asyncio.wait([second])
    if not second.cancelled():
        second.result().settle("cancelled")
    (await asyncio.wait_for(third, 2)).settle("completed")
    await house.load(0, 0)
    assert len(await house.events()) == 2 + (not second.cancelled())


@pytest.mark.parametrize("is_full", [False, True])
async def test_a_caller_that_is_gone_gets_no_slot(house: House, is_full: bool) -> None:
    """Cancelled in whichever round of the loop, an admission that was not over yet ends, and leaves nothing."""
    gate = house.replica("one", 1)
    holder = await gate.admit(asking())
    if not is_full:
        holder.settle("completed")
        await house.load(0, 0)
    for rounds in range(60):
        visit = asyncio.create_task(gate.admit(asking()))
        for _ in range(rounds // 2):
            await asyncio.wait([asyncio.create_task(_nothing())])
        was_under_way = visit.cancel()
        await asyncio.wait([visit])
        assert visit.cancelled() is was_under_way
        if not was_under_way:
            visit.result().settle("completed")
    holder.settle("completed")
    await house.load(0, 0)
    assert await house.leftovers() == []


async def test_a_gate_stops_whenever_it_is_asked_to(house: House) -> None:
    """Stopped in whichever round of the loop, its loops end within their longest wait."""
    for rounds in range(24):
        gate = house.replica("one", 1)
        lease = await gate.admit(asking())
        lease.settle("completed")
        for _ in range(rounds // 2):
            await asyncio.wait([asyncio.create_task(_nothing())])
        async with asyncio.timeout(LISTEN_MS / 1000 + 1):
            await house.cut_off("one")
    await house.load(0, 0)
    assert len({event["id"] for event in await house.events()}) == 24


async def _nothing() -> None:
    """One round of the loop."""


async def test_a_dead_replica_gives_its_slots_back(virtual: VirtualHouse) -> None:
    """Within a lease and a second its slots are taken back, settled as abandoned, and its queue blocks nobody."""
    one, two = virtual.replica("one", 2), virtual.replica("two", 2)
    await virtual.pass_ms(1_000)
    dead = [asyncio.create_task(one.admit(asking(entry(f"dead{number}")))) for number in range(4)]
    await virtual.load(2, 2)
    alive = [asyncio.create_task(two.admit(asking(entry(f"alive{number}")))) for number in range(2)]
    await virtual.load(2, 4)
    await virtual.pass_ms(1_000)
    await virtual.cut_off("one")
    await virtual.pass_ms(LEASE_MS - 1_000)
    assert not any(task.done() for task in alive)
    await virtual.pass_ms(2_000)
    leases = await asyncio.wait_for(asyncio.gather(*alive), 2)
    assert sorted(event["id"] for event in await virtual.events()) == ["dead0", "dead1"]
    assert {event["outcome"] for event in await virtual.events()} == {"abandoned"}
    for lease in leases:
        lease.settle("completed")
    await virtual.load(0, 0)
    assert await virtual.leftovers() == []
    for task in dead:
        task.cancel()
    await asyncio.wait(dead)


async def test_a_replica_that_was_cut_off_learns_what_it_lost(virtual: VirtualHouse) -> None:
    """Its stream is told that the lease is gone; the one that waited there is entered again and served."""
    one, two = virtual.replica("one", 1), virtual.replica("two", 1)
    await virtual.pass_ms(1_000)
    lost = await one.admit(asking(entry("lost")))
    is_told = asyncio.Event()
    lost.on_taken = is_told.set
    waits = asyncio.create_task(one.admit(asking(entry("waits"))))
    await virtual.load(1, 1)
    await virtual.cut_off("one")
    await virtual.pass_ms(LEASE_MS + 1_000)
    await virtual.load(0, 0)
    other = await asyncio.wait_for(two.admit(asking(entry("other"))), 2)
    virtual.come_back("one")
    await virtual.pass_ms(1_000)
    assert is_told.is_set()
    assert lost.taken
    assert not waits.done()
    lost.settle("failed")
    other.settle("completed")
    (await asyncio.wait_for(waits, 2)).settle("completed")
    await virtual.load(0, 0)
    outcomes = [(event["id"], event["outcome"]) for event in await virtual.events()]
    assert outcomes == [("lost", "abandoned"), ("lost", "failed"), ("other", "completed"), ("waits", "completed")]


async def test_a_turn_that_was_missed_comes_again(virtual: VirtualHouse) -> None:
    """Who got a slot while its replica was cut off, and lost it, waits again instead of for ever."""
    one, two = virtual.replica("one", 1), virtual.replica("two", 1)
    await virtual.pass_ms(1_000)
    holder = await two.admit(asking(entry("holder")))
    waits = asyncio.create_task(one.admit(asking(entry("waits"))))
    await virtual.load(1, 1)
    await virtual.cut_off("one")
    holder.settle("completed")
    await virtual.load(1, 0)
    await virtual.pass_ms(LEASE_MS + 2_000)
    await virtual.load(0, 0)
    virtual.come_back("one")
    await virtual.pass_ms(1_000)
    (await asyncio.wait_for(waits, 2)).settle("completed")
    await virtual.load(0, 0)
    assert (await virtual.events())[-1]["outcome"] == "completed"


@pytest.mark.parametrize("away_ms", [1_000, 4_500, 4_750, 5_000, 5_250, 60_000])
async def test_an_outage_costs_nobody_a_lease(virtual: VirtualHouse, away_ms: int) -> None:
    """However long all replicas were cut off, and whichever loop comes back first, leases live on."""
    one = virtual.replica("one", 1)
    await virtual.pass_ms(1_750)
    lease = await one.admit(asking(entry("stays")))
    await virtual.pass_ms(500)
    await virtual.cut_off("one")
    assert virtual.ledger.now_ms is not None
    virtual.ledger.now_ms += away_ms
    assert await virtual.ledger.reap() == []
    virtual.come_back("one")
    await virtual.pass_ms(LEASE_MS + 1_000)
    assert not lease.taken
    lease.settle("completed")
    await virtual.load(0, 0)
    assert [event["outcome"] for event in await virtual.events()] == ["completed"]


async def test_streams_and_queues_outlive_the_loss_of_redis_state(virtual: VirtualHouse) -> None:
    """After FLUSHALL streams hold their slots again, who waited waits again in its order, windows are told again."""
    gates = [virtual.replica("one", 2), virtual.replica("two", 2)]
    await virtual.pass_ms(1_000)
    streams = [await gate.admit(asking(entry(f"s{number}"))) for number, gate in enumerate(gates)]
    waiting = []
    for number in range(4):
        waiting.append(asyncio.create_task(gates[0].admit(asking(entry(f"w{number}", user="ann")))))
        await virtual.load(2, number + 1)
    await virtual.redis.flushall()
    await virtual.pass_ms(2_000)
    # The queue of one may be there before the stream of the other: the window is overfilled then, for a while.
    running, waits = await virtual.ledger.load(ENGINE)
    assert running + waits == 6
    assert running <= 4
    for stream in streams:
        stream.settle("completed")
    for number, task in enumerate(waiting):
        lease = await asyncio.wait_for(task, 2)
        assert lease.entry.id == f"w{number}"
        lease.settle("completed")
    await virtual.load(0, 0)
    assert await virtual.leftovers() == []
    assert len({event["id"] for event in await virtual.events()}) == 6


async def test_waiting_has_a_bound(redis: Redis) -> None:
    """Who gets no slot in time is told when to come again, and is out of the queue."""
    async with house_of(redis, Settings(queue_wait_ms_max=100)) as house:
        gate = house.replica("one", 1)
        await gate.admit(asking(entry("stays")))
        with pytest.raises(Unavailable, match="in time") as caught:
            await gate.admit(asking(entry("goes")))
        assert (caught.value.code, caught.value.retry_after_s) == ("queue_timeout", 30)
        await house.load(1, 0)


async def test_an_engine_may_come_while_windows_are_told(house: House) -> None:
    """A new window in the middle of telling them ends no loop."""
    gate = house.replica("one", 1)
    (await gate.admit(asking())).settle("completed")
    for number in range(2):
        await house.redis.client_pause(TEND_MS + 300)
        await house.clock.sleep_ms(TEND_MS + 150)  # the loop has asked, and waits for the answer
        gate.set_window(f"new{number}", Window(slots=1))
    (await asyncio.wait_for(gate.admit(asking()), 5)).settle("completed")
    stopped, _ = await asyncio.wait([house._running["one"]], timeout=1)
    assert not stopped


async def test_a_full_queue_stays_in_order_when_many_come_at_once(redis: Redis) -> None:
    """Three hundred of one person at once, room for fifty: all others are refused, and nothing is left of them."""
    async with house_of(redis, Settings(queue_length_max=50, queue_wait_ms_max=20_000)) as house:
        gates = [house.replica("one", 2), house.replica("two", 2)]
        (await gates[0].admit(asking())).settle("completed")
        visits = [asyncio.create_task(gates[number % 2].admit(asking(entry(user="ann")))) for number in range(300)]
        await house.load(2, 50)
        served, codes = 0, set()
        async with asyncio.timeout(20):
            for task in asyncio.as_completed(visits):
                try:
                    (await task).settle("completed")
                    served += 1
                except Unavailable as error:
                    codes.add(error.code)
        await house.load(0, 0)
        assert served >= 52
        assert codes == {"queue_full"}
        assert len(await house.events()) == served + 1
        assert await house.leftovers() == []
