"""Whose answer is paused for a light user, and whose is not; in scenes."""

import pytest
from redis.asyncio import Redis

from quotas.ledger import Fact, Progress
from tests.quotas.yard import COST, REPLICA, Yard

QUANTUM = 100
# Of one request: enough for its flow not to be sparse any more.
HEAVY = 500


@pytest.fixture
async def yard(redis: Redis) -> Yard:
    """Four slots, none of which is kept."""
    yard = Yard(redis)
    await yard.window(slots=4, sparse_cost_max=QUANTUM)
    return yard


async def write(yard: Yard, names: list[str], *, is_pausable: bool = True) -> list[Fact]:
    """Each of these answers gets a token; what the ledger says to them."""
    progress = []
    for name in names:
        yard.output_tokens[name] += 1
        tokens = yard.output_tokens[name]
        progress.append(Progress(name, tokens, 5, COST.of(yard.entries[name].input_tokens, tokens), is_pausable))
    return [fact for _, fact in await yard.ledger.charge(REPLICA, progress)]


async def pause(yard: Yard, name: str, number: int = 1) -> str:
    """The replica closes its stream, as it was told."""
    entry, tokens = yard.entries[name], yard.output_tokens[name]
    cost = COST.of(entry.input_tokens, tokens)
    return await yard.ledger.requeue(name, entry.engine, pause=number, output_tokens=tokens, cost=cost)


async def crowd(yard: Yard, prompts: tuple[int, ...] = (HEAVY,) * 4) -> list[str]:
    """A heavy flow has every slot, and more requests waiting."""
    names = [await yard.ask("heavy", prompt=prompt) for prompt in prompts]
    await yard.ask("heavy", prompt=HEAVY)
    await write(yard, names)
    return names


async def test_the_cheapest_to_take_up_again_is_paused_and_goes_on_next(yard: Yard) -> None:
    """Prompt and answer so far are read again: the fewest tokens. The guest runs at once, and then the paused one."""
    names = await crowd(yard, (HEAVY, HEAVY - 100, HEAVY - 200, HEAVY))
    guest = await yard.ask("guest")
    assert await yard.news() == [("pause", names[2])]
    assert await write(yard, names) == ["running", "running", "paused", "running"]
    assert await pause(yard, names[2]) == "queued"
    assert await yard.news() == [("run", guest)]
    await yard.end(guest)
    assert await yard.news() == [("run", names[2])]
    assert await write(yard, [names[2]]) == ["running"]


async def test_what_cannot_be_paused_is_not(yard: Yard) -> None:
    """The guest waits, until an answer says that it could; one that was told and says otherwise goes on."""
    names = await crowd(yard)
    await write(yard, names, is_pausable=False)
    guest = await yard.ask("guest")
    assert await yard.news() == []
    await write(yard, names[:1])
    assert await yard.news() == [("pause", names[0])]
    assert await write(yard, names[:1], is_pausable=False) == ["running"]
    assert await yard.queued() == ["r0004", guest]


async def test_a_heavy_flow_keeps_its_last_slot_while_the_guest_has_some(yard: Yard) -> None:
    """Three of four go to the guest's batch, one after the other; the fourth waits for an end."""
    names = await crowd(yard)
    guests = [await yard.ask("guest", prompt=1) for _ in range(4)]
    told = []
    while news := await yard.news():
        told += [name for kind, name in news if kind == "pause"]
        for name in told[-1:]:
            await pause(yard, name)
    assert len(set(told)) == len(told) == 3
    running = await yard.running()
    assert set(guests[:3]) < set(running)
    assert len(set(names) & set(running)) == 1


async def test_the_last_slot_goes_to_who_has_none(yard: Yard) -> None:
    """However many light users there are, each gets one."""
    names = await crowd(yard)
    guests = [await yard.ask(f"guest-{number}", prompt=1) for number in range(4)]
    for name in reversed(names):
        assert ("pause", name) in await yard.news()
        await pause(yard, name)
    assert sorted(await yard.running()) == guests


async def test_two_light_flows_do_not_take_turns_in_pausing_each_other(yard: Yard) -> None:
    """Of two that have used little, who holds two more gives one up, and it does not come back that way."""
    first = [await yard.ask("zoe", prompt=15) for _ in range(5)]
    await write(yard, first[:4])
    second = [await yard.ask("ann", prompt=1) for _ in range(5)]
    for count in (1, 2):
        ((_, name),) = [news for news in await yard.news() if news[0] == "pause"]
        assert name in first
        assert await pause(yard, name) == "queued"
        assert len(set(second) & set(await yard.running())) == count
    await write(yard, await yard.running())
    yard.ledger.now_ms = yard.now_ms + 10_000
    await write(yard, await yard.running())
    assert [news for news in await yard.news() if news[0] == "pause"] == []


async def test_no_answer_is_paused_twice_within_a_second(yard: Yard) -> None:
    """Whenever it went on; another one is, if there is one."""
    await yard.window(slots=1, sparse_cost_max=QUANTUM)
    (name,) = await crowd(yard, (HEAVY,))
    for number in (1, 2):
        guest = await yard.ask("guest", prompt=1)
        assert ("pause", name) in await yard.news()
        await pause(yard, name, number)
        await yard.end(guest)
        await write(yard, [name])
        waits = await yard.ask("guest", prompt=1)
        yard.ledger.now_ms = yard.now_ms + 999
        await write(yard, [name])
        assert ("pause", name) not in await yard.news()
        await yard.ledger.cancel(waits)
        yard.ledger.now_ms = yard.now_ms + 1
        await write(yard, [name])


async def test_a_lease_that_can_be_paused_spares_the_reserve(yard: Yard) -> None:
    """A slot is kept for the guest while nobody could be paused for it, and given away as soon as somebody could."""
    names = await crowd(yard)
    guest = await yard.ask("guest")
    await yard.window(slots=4, reserved_slots=1, sparse_cost_max=QUANTUM)
    await pause(yard, names[3])
    await write(yard, names[:3], is_pausable=False)
    await yard.end(guest)
    assert names[3] in await yard.queued()
    await write(yard, names[:1])
    assert names[3] in await yard.running()
