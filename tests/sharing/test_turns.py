"""Turns at the gate: replicas that share one order, who is told what while waiting, and slots that are taken back."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
from redis.asyncio import Redis

from quotas.forecast import Standing
from quotas.policy import Limits
from quotas.window import Window
from server.errors import InvalidRequest, TooMany
from server.settings import Settings
from server.sharing.gate import Gate
from server.sharing.lease import Lease
from server.sharing.waiting import QuotasChanged
from tests.sharing.replicas import ENGINE, House, VirtualHouse, asking, entry, house_of, virtual_house_of

Told = list[tuple[int, int | None, dict[str, str]]]


@pytest.fixture
async def house(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """A house in real time, where who waits is told often."""
    monkeypatch.setattr("server.sharing.waiting.TELL_MS", 10)
    monkeypatch.setattr("server.sharing.waiting.TELL_FIRST_MS", 10)
    monkeypatch.setattr("server.sharing.outlook.FRESH_MS", 5)
    async with house_of(redis, Settings(queue_wait_ms_max=20_000, redis_grace_ms=300)) as house:
        yield house


@pytest.fixture
async def virtual(redis: Redis) -> AsyncIterator[VirtualHouse]:
    """A house in virtual time: unless time passes, no loop reports."""
    async with virtual_house_of(redis, Settings(queue_wait_ms_max=20_000)) as house:
        yield house


def visits(gate: Gate, user: str, count: int, *, is_revocable: bool = False) -> list[asyncio.Task[Lease]]:
    """So many requests of one person."""
    return [asyncio.create_task(gate.admit(asking(entry(user=user, is_revocable=is_revocable)))) for _ in range(count)]


async def over(*tasks: asyncio.Task[Lease]) -> None:
    """Let these leave, or end."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result().settle("cancelled")


async def test_a_newcomer_at_one_replica_goes_before_a_hog_at_another(house: House) -> None:
    """There is one order for all."""
    one, two = house.replica("one", 1), house.replica("two", 1)
    hog = visits(one, "hog", 6)
    await house.load(1, 5)
    (newcomer,) = visits(two, "new", 1)
    await house.load(1, 6)
    first, _ = await asyncio.wait(hog, return_when=asyncio.FIRST_COMPLETED)
    first.pop().result().settle("completed")
    lease = await asyncio.wait_for(newcomer, 5)
    assert sum(task.done() for task in hog) == 1
    lease.settle("completed")
    await over(*hog)
    await house.load(0, 0)


async def test_two_replicas_share_the_slots_and_the_limits_of_a_person(house: House) -> None:
    """In-flight limits and full queues count what is at either."""
    gates = [house.replica("one", 8), house.replica("two", 8)]
    (await gates[0].admit(asking())).settle("completed")  # the window is known from here on
    limits = Limits(in_flight_max=2, queue_length_max=3)
    tasks = [asyncio.create_task(gates[number % 2].admit(asking(entry(user="ann"), limits))) for number in range(5)]
    await house.load(2, 3)
    for gate in gates:
        with pytest.raises(TooMany) as caught:
            await gate.admit(asking(entry(user="ann"), limits))
        assert caught.value.code == "queue_limit_exceeded"
    await over(*tasks)
    await house.load(0, 0)


async def test_who_waits_is_told_where_it_stands(house: House) -> None:
    """About as often as it may change, with the headers of its answer; who need not wait is told nothing."""
    gate = house.replica("one", 1)
    told: dict[str, Told] = {}

    def tell_of(name: str) -> asyncio.Task[Lease]:
        async def tell(standing: Standing, headers: Mapping[str, str]) -> None:
            told.setdefault(name, []).append((standing.ahead, standing.wait_ms, dict(headers)))

        request = asking(entry(name, user="ann"), Limits(tokens_per_day=1_000), tell=tell)
        return asyncio.create_task(gate.admit(request))

    tasks = []
    for number in range(4):
        tasks.append(tell_of(f"r{number}"))
        await house.load(1, number)
    async with asyncio.timeout(5):
        while any(len(told.get(f"r{number}", [])) < 2 for number in (1, 2, 3)):
            await house.clock.sleep_ms(5)
    assert "r0" not in told
    for number in (1, 2, 3):
        assert {ahead for ahead, _, _ in told[f"r{number}"]} == {number - 1}
        # Nothing was answered yet, so nobody knows how long it takes; each took 13 tokens of the budget.
        assert told[f"r{number}"][0][1] is None
        assert told[f"r{number}"][0][2]["x-ratelimit-remaining-tokens"] == str(1_000 - 13 * (number + 1))
    lease = await tasks[0]
    lease.output_tokens = 10
    lease.see_first_token()
    await house.clock.sleep_ms(20)  # so that the answer took some time
    lease.settle("completed")
    async with asyncio.timeout(5):
        while told["r3"][-1][0] != 1:
            await house.clock.sleep_ms(5)
    assert told["r3"][-1][1] is not None
    await over(*tasks)


async def test_a_client_that_cannot_be_told_leaves_the_queue(house: House) -> None:
    """Whatever goes wrong in telling, its place is not kept for nobody."""
    gate = house.replica("one", 1)
    (holder,) = visits(gate, "bob", 1)
    await house.load(1, 0)

    async def tell(_standing: Standing, _headers: Mapping[str, str]) -> None:
        raise RuntimeError("the client's connection is in no state to be written to")

    with pytest.raises(RuntimeError):
        await gate.admit(asking(entry(user="ann"), tell=tell))
    await house.load(1, 0)
    await over(holder)
    await house.load(0, 0)
    assert await house.leftovers() == []


async def test_limits_that_are_not_in_force_are_read_again(house: House) -> None:
    """The gate refuses them without a trace; with the new version the request enters."""
    gate = house.replica("one", 1)
    newest = ""
    for version in ("", "old"):
        newest = await house.ledger.renew_policy_version()
        with pytest.raises(QuotasChanged):
            await gate.admit(asking(version=version))
    assert await house.leftovers() == []
    lease = await gate.admit(asking(version=newest))
    # What waits or runs already is not touched by a change.
    (waits,) = [asyncio.create_task(gate.admit(asking(version=newest)))]
    await house.load(1, 1)
    await house.ledger.renew_policy_version()
    lease.settle("completed")
    (await asyncio.wait_for(waits, 5)).settle("completed")


async def test_what_no_budget_can_hold_is_refused_at_the_gate(house: House) -> None:
    """With the caller's own limit as the reason, and nothing is left of it."""
    gate = house.replica("one", 1)
    with pytest.raises(InvalidRequest):
        await gate.admit(asking(limits=Limits(tokens_per_day=12)))
    used = asking(entry(user="ann"), limits=Limits(tokens_per_day=20))
    lease = await gate.admit(used)
    with pytest.raises(TooMany) as caught:
        await gate.admit(asking(entry(user="ann"), limits=Limits(tokens_per_day=20)))
    assert caught.value.retry_after_s is not None
    assert 0 < caught.value.retry_after_s <= 86_400
    lease.settle("completed")
    await house.load(0, 0)
    assert await house.leftovers() == []


# First tokens.


@pytest.mark.parametrize("is_elsewhere", [False, True])
async def test_a_first_token_is_told_at_once_where_others_wait_for_it(
    virtual: VirtualHouse, is_elsewhere: bool
) -> None:
    """The next prompt is read without waiting for the report, also where it waits at another replica."""
    one, two = virtual.replica("one", 4), virtual.replica("two", 4)
    for gate in (one, two):
        gate.set_window(ENGINE, Window(slots=4, prefill_tokens_max=4, sparse_cost_max=0))
    await virtual.pass_ms(1_000)
    lease = await one.admit(asking(entry("reads")))
    waits = asyncio.create_task((two if is_elsewhere else one).admit(asking(entry("waits"))))
    await virtual.load(1, 1)
    if is_elsewhere:
        await virtual.pass_ms(1_000)  # the replica learns that somebody waits
    assert not waits.done()
    lease.see_first_token()
    (await asyncio.wait_for(waits, 5)).settle("completed")
    lease.settle("completed")
    await virtual.load(0, 0)


async def test_first_tokens_are_not_hurried_for_nobody(virtual: VirtualHouse) -> None:
    """Where nobody waits the report tells them."""
    gate = virtual.replica("one", 4)
    await virtual.pass_ms(1_000)
    lease = await gate.admit(asking(entry("r")))
    lease.see_first_token()
    lease.see_first_token()
    assert gate._first_tokens.empty()
    lease.settle("completed")


# Slots that are taken back.


async def taken_of(lease: Lease) -> str:
    """Wait until a lease is taken away, and end it as its request does."""
    told = asyncio.Event()
    lease.on_taken = told.set
    if lease.taken is None:
        await asyncio.wait_for(told.wait(), 5)
    assert lease.taken is not None
    lease.settle("revoked" if lease.taken == "revoked" else "failed")
    return lease.taken


@pytest.mark.parametrize("is_news_lost", [False, True])
async def test_a_revocable_lease_is_taken_for_somebody_who_waits(house: House, is_news_lost: bool) -> None:
    """By news, or by the next report where the news was lost; the guest at another replica gets the slot."""
    one, two = house.replica("one", 2), house.replica("two", 2)
    leases = [await task for _ in range(2) for task in visits(one, "hog", 1, is_revocable=True)]
    if is_news_lost:
        await house.cut_off("one")
    (guest,) = visits(two, "guest", 1)
    await house.load(2, 1)
    if is_news_lost:
        await house.redis.delete("wf:{box}:go:one")
        house.come_back("one")
    assert await taken_of(leases[1]) == "revoked"
    (await asyncio.wait_for(guest, 5)).settle("completed")
    assert leases[0].taken is None
    leases[0].settle("completed")
    await house.load(0, 0)
    assert sorted(event["outcome"] for event in await house.events()) == ["completed", "completed", "revoked"]
    assert await house.leftovers() == []


async def test_several_guests_take_several_slots_one_by_one(house: House) -> None:
    """Each that waits gets one, and no more are taken than are needed."""
    gate = house.replica("one", 4)
    leases = [await task for task in visits(gate, "hog", 4, is_revocable=True)]
    endings = [asyncio.create_task(taken_of(lease)) for lease in leases]
    guests = [task for user in ("g1", "g2") for task in visits(gate, user, 1)]
    for guest in guests:
        (await asyncio.wait_for(guest, 5)).settle("completed")
    assert sum(lease.taken is not None for lease in leases) == 2
    for task, lease in zip(endings, leases, strict=True):
        task.cancel()
        lease.settle("completed")
    await house.load(0, 0)
    outcomes = [event["outcome"] for event in await house.events()]
    assert (outcomes.count("revoked"), outcomes.count("completed")) == (2, 4)
