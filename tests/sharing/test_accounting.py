"""Whoever leaves whenever, and whatever Redis forgets: budgets hold what the usage rows say, and nothing twice."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from quotas.policy import Limits
from quotas.window import Window
from server.errors import WirthforgeError
from server.settings import Settings
from server.sharing.gate import Gate
from server.sharing.lease import Lease, Outcome
from tests.sharing.replicas import ENGINE, House, asking, entry, house_of

USERS = ("ann", "bob", "cid", "dot")
LIMITS = {
    "ann": Limits(tokens_per_day=10**6),
    "bob": Limits(tokens_per_day=10**6, in_flight_max=1),
    "cid": Limits(tokens_per_month=10**6, weight=400, queue_length_max=4),
    "dot": Limits(tokens_per_day=150),
}
VISITS, CANCELLED_MAX = 60, 30


@pytest.fixture
async def house(redis: Redis) -> AsyncIterator[House]:
    """A house in real time."""
    async with house_of(redis, Settings(queue_wait_ms_max=20_000, redis_grace_ms=2_000)) as house:
        yield house


def gates_of(house: House) -> list[Gate]:
    """Two replicas in front of an engine with all of its gates."""
    gates = [house.replica(name, 3) for name in ("one", "two")]
    for gate in gates:
        gate.set_window(
            ENGINE, Window(slots=3, reserved_slots=1, prefill_tokens_max=6, kv_tokens=200, sparse_cost_max=60)
        )
    return gates


async def stream(house: House, lease: Lease, chance: random.Random) -> None:
    """Some tokens, or none, and an end of some kind; at once where the lease is taken away."""
    taken = asyncio.Event()
    lease.on_taken = taken.set
    for _ in range(chance.randrange(4)):
        await house.clock.sleep_ms(chance.randrange(4))
        if taken.is_set():
            break
        lease.output_tokens += chance.randrange(1, 4)
        lease.see_first_token()
    outcome: Outcome = chance.choice(["completed", "completed", "failed", "cancelled"])
    lease.settle("revoked" if lease.taken == "revoked" else outcome)


async def visit(house: House, gate: Gate, chance: random.Random, admitted: dict[str, Lease]) -> None:
    """Somebody comes, perhaps waits, perhaps streams, and is perhaps cancelled at any of this."""
    user = chance.choice(USERS)
    await house.clock.sleep_ms(chance.randrange(60))
    request = entry(user=user, is_revocable=chance.random() < 0.3)
    try:
        lease = await gate.admit(asking(request, LIMITS[user]))
    except WirthforgeError:
        return
    admitted[request.id] = lease
    try:
        await stream(house, lease, chance)
    finally:
        lease.settle("cancelled")


async def all_visits(house: House, gates: list[Gate], chance: random.Random, *, forgets: bool) -> dict[str, Lease]:
    """Many of them, of whom some are cancelled; meanwhile Redis may forget everything."""
    admitted: dict[str, Lease] = {}
    visits = [
        asyncio.create_task(visit(house, chance.choice(gates), random.Random(chance.random()), admitted))  # noqa: S311
        for _ in range(VISITS)
    ]
    forgets_at = chance.randrange(20) if forgets else -1
    rounds = cancelled = 0
    while any(not visit.done() for visit in visits):
        await house.clock.sleep_ms(chance.randrange(4))
        if rounds == forgets_at:
            await house.redis.flushdb()
        rounds += 1
        there = [visit for visit in visits if not visit.done()]
        if there and cancelled < CANCELLED_MAX and chance.random() < 0.4:
            cancelled += chance.choice(there).cancel()
    for each in visits:
        assert each.cancelled() or each.exception() is None
    await house.load(0, 0, within_ms=15_000)
    assert len(admitted) > VISITS // 12
    return admitted


async def residue(house: House) -> dict[str, Any]:
    """What is left of requests that are over, and should not be."""
    redis: Any = house.redis
    prefix = "wf:{box}:"
    live = await redis.hgetall(f"{prefix}live:{ENGINE}")
    patterns = ("request:*", "holds:*", f"queue:{ENGINE}*", f"ranking:{ENGINE}", f"running:{ENGINE}")
    keys = [key for pattern in (*patterns, "revo*") async for key in redis.scan_iter(prefix + pattern)]
    spent = [await redis.hget(f"{prefix}flow:{user}", "spent") for user in USERS]
    return {
        "keys": keys,
        "live": [int(live.get(name, 0)) for name in ("prefill", "kv")],
        "spent": [value for value in spent if value not in {None, "0"}],
    }


NOTHING = {"keys": [], "live": [0, 0], "spent": []}


async def used(house: House) -> Counter[str]:
    """Tokens by user, as the settled events have them, each request once."""
    events = {event["id"]: event for event in await house.events()}
    tokens: Counter[str] = Counter()
    for event in events.values():
        tokens[event["user"]] += int(event["input_tokens"]) + int(event["output_tokens"])
    return tokens


async def budgets(house: House) -> Counter[str]:
    """The same, as the budgets have them."""
    return Counter({user: (await house.ledger.budget(user)).tokens_per_month for user in USERS})


@pytest.mark.parametrize("seed", range(8))
async def test_budgets_hold_what_was_used_whoever_leaves_whenever(house: House, seed: int) -> None:
    """Streams that end, fail, are cancelled or taken away, at any await: events and budgets agree, nothing is left."""
    chance = random.Random(seed)  # noqa: S311 (a schedule, no secret)
    gates = gates_of(house)
    admitted = await all_visits(house, gates, chance, forgets=False)
    events = [event["id"] for event in await house.events()]
    assert sorted(events) == sorted(admitted)
    tokens = await used(house)
    assert tokens == sum(
        (Counter({lease.entry.user: lease.input_tokens + lease.output_tokens}) for lease in admitted.values()),
        Counter[str](),
    )
    assert +(await budgets(house)) == +tokens
    assert tokens["dot"] <= 150 + 10
    assert await residue(house) == NOTHING


@pytest.mark.parametrize("seed", range(8))
async def test_a_redis_that_forgets_everything_charges_nobody_twice(
    house: House, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it forgets, streams and queues go on, budgets start level and hold no more than was used."""
    monkeypatch.setattr("server.sharing.gate.TEND_MS", 50)
    chance = random.Random(100 + seed)  # noqa: S311 (a schedule, no secret)
    gates = gates_of(house)
    admitted = await all_visits(house, gates, chance, forgets=True)
    events = [event["id"] for event in await house.events()]
    assert len(events) == len(set(events))
    assert set(events) <= set(admitted)
    tokens: Counter[str] = Counter()
    for lease in admitted.values():
        tokens[lease.entry.user] += lease.input_tokens + lease.output_tokens
    for user, amount in (await budgets(house)).items():
        assert 0 <= amount <= tokens[user]
    assert await residue(house) == NOTHING


class Faulty:
    """A Redis whose replies are lost now and then: the script has run, and its caller learns of an error."""

    def __init__(self, house: House, chance: random.Random) -> None:
        self._chance = chance
        self._run = house.ledger._run

    async def __call__(self, script: str, *arguments: str | int) -> Any:
        """Run a script, and lose its reply sometimes."""
        reply = await self._run(script, *arguments)
        if self._chance.random() < 0.15:
            raise ConnectionError("the reply was lost")
        return reply


@pytest.mark.parametrize("seed", range(6))
async def test_lost_replies_charge_nobody_twice(house: House, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every script may have run although nobody heard of it: what it did is done once, and nothing is left."""
    monkeypatch.setattr("server.sharing.gate.RETRY_MS", 5)
    chance = random.Random(200 + seed)  # noqa: S311 (a schedule, no secret)
    gates = gates_of(house)
    monkeypatch.setattr(house.ledger, "_run", cast("Any", Faulty(house, chance)))
    admitted = await all_visits(house, gates, chance, forgets=False)
    monkeypatch.undo()
    await settled(house, set(admitted))
    tokens: Counter[str] = Counter()
    for lease in admitted.values():
        tokens[lease.entry.user] += lease.input_tokens + lease.output_tokens
    assert +(await used(house)) == +tokens
    assert +(await budgets(house)) == +tokens
    assert await residue(house) == NOTHING


async def settled(house: House, names: set[str]) -> None:
    """Wait until each of these has its event."""
    async with asyncio.timeout(5):
        while {event["id"] for event in await house.events()} != names:
            await house.clock.sleep_ms(10)
