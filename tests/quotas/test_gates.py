"""What an engine is given at a time, by the scripts themselves: slots, prefill, memory, and what is taken back."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from quotas.window import SPARSE_COST_MAX
from tests.quotas.yard import Yard

GUEST_REMEMBERED_MS = 600_000
TRIM_EVERY_MS = 5_000
# Of one request: enough for its flow not to be sparse any more.
DEAR = SPARSE_COST_MAX


@pytest.fixture
def yard(redis: Redis) -> Yard:
    """A box."""
    return Yard(redis)


async def _guest(yard: Yard, user: str = "guest") -> None:
    """Somebody comes, is served, and leaves."""
    name = await yard.ask(user)
    assert name in await yard.running()
    await yard.end(name)


# The sparse reserve.


async def test_without_guests_all_slots_are_lent(yard: Yard) -> None:
    """One who is alone may use the slots that are kept for others."""
    await yard.window(slots=4, reserved_slots=2, sparse_cost_max=SPARSE_COST_MAX)
    names = [await yard.ask("hog", prompt=DEAR) for _ in range(6)]
    assert await yard.running() == names[:4]


async def test_slots_are_kept_while_a_guest_was_seen_lately(yard: Yard) -> None:
    """After guests came, a heavy flow leaves a slot for each; the next guests run at once, as many as are reserved."""
    await yard.window(slots=4, reserved_slots=2, sparse_cost_max=SPARSE_COST_MAX)
    for guest in range(3):
        await _guest(yard, f"guest{guest}")
    names = [await yard.ask("hog", prompt=DEAR) for _ in range(6)]
    assert await yard.running() == names[:2]
    guests = [await yard.ask(f"guest{number}") for number in range(3)]
    assert await yard.running() == [*names[:2], *guests[:2]]
    assert set(await yard.queued()) == {*names[2:], guests[2]}


async def test_slots_that_were_kept_are_lent_ten_minutes_after_the_last_guest(yard: Yard) -> None:
    """Not a moment before, and then to whoever waits."""
    await yard.window(slots=2, reserved_slots=1, sparse_cost_max=SPARSE_COST_MAX)
    await _guest(yard)
    names = [await yard.ask("hog", prompt=DEAR) for _ in range(3)]
    await yard.pass_ms(GUEST_REMEMBERED_MS - 1)
    await yard.window(slots=2, reserved_slots=1, sparse_cost_max=SPARSE_COST_MAX)
    assert await yard.running() == names[:1]
    await yard.pass_ms(1)
    await yard.window(slots=2, reserved_slots=1, sparse_cost_max=SPARSE_COST_MAX)
    assert await yard.running() == names[:2]


async def test_nobody_is_a_guest_beside_themselves(yard: Yard) -> None:
    """That one was sparse before does not keep slots from oneself."""
    await yard.window(slots=2, reserved_slots=1, sparse_cost_max=SPARSE_COST_MAX)
    await _guest(yard, "hog")
    names = [await yard.ask("hog", prompt=DEAR) for _ in range(3)]
    assert await yard.running() == names[:2]


async def test_a_standing_reserve_is_kept_also_without_guests(yard: Yard) -> None:
    """Large engines keep their few slots always."""
    await yard.window(slots=4, reserved_slots=1, sparse_cost_max=SPARSE_COST_MAX, is_reserve_standing=True)
    names = [await yard.ask("hog", prompt=DEAR) for _ in range(5)]
    assert await yard.running() == names[:3]
    guest = await yard.ask("guest")
    assert guest in await yard.running()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 6), st.integers(0, 8), st.booleans())
async def test_a_reserve_never_closes_an_engine(redis: Redis, slots: int, reserved: int, is_standing: bool) -> None:
    """However many slots are to be kept, one remains for those who are not sparse."""
    yard = Yard(redis)
    await yard.window(slots=slots, reserved_slots=reserved, sparse_cost_max=1, is_reserve_standing=is_standing)
    for guest in range(slots):
        await _guest(yard, f"guest{guest}")
    for _ in range(slots + 1):
        await yard.ask("hog")
    assert len(await yard.running()) == max(slots - reserved, 1)


async def test_a_guest_takes_no_more_of_the_reserve_than_there_is(yard: Yard) -> None:
    """One who asks many small things at once leaves the last kept slot to the next guest."""
    await yard.window(slots=4, reserved_slots=1, sparse_cost_max=SPARSE_COST_MAX)
    await _guest(yard)
    names = [await yard.ask("many") for _ in range(5)]
    assert await yard.running() == names[:3]
    other = await yard.ask("other")
    assert await yard.running() == [*names[:3], other]


async def test_answers_of_one_request_take_a_slot_each(yard: Yard) -> None:
    """Who asks for three at once waits for three, and one that is larger than the engine is served alone."""
    await yard.window(slots=4)
    first = await yard.ask("ann", answers=2)
    three = await yard.ask("ann", answers=3)
    assert await yard.running() == [first]
    await yard.end(first)
    huge = await yard.ask("ann", answers=9)
    small = await yard.ask("ann")
    assert await yard.running() == [three]
    await yard.end(three)
    assert await yard.running() == [huge]
    await yard.end(huge)
    assert await yard.running() == [small]
    assert await yard.held("slots") == 1


async def test_being_sparse_is_earned_by_service_not_by_numbers(yard: Yard) -> None:
    """Many small requests at once are sparse until they have used a quantum together, on all engines."""
    await yard.window(slots=9, reserved_slots=1, sparse_cost_max=40, is_reserve_standing=True)
    names = [await yard.ask("ann", prompt=10) for _ in range(12)]
    assert await yard.running() == names[:8]
    guests = [await yard.ask("guest", prompt=10)]
    assert await yard.running() == [*names[:8], *guests]
    # Who is idle begins anew.
    for name in [*names[:8], *guests]:
        await yard.end(name)
    assert await yard.running() == names[8:]
    for name in names[8:]:
        await yard.end(name)
    assert await yard.redis.hget(f"{yard.prefix}flow:ann", "spent") == "0"


async def test_who_always_has_something_running_may_stay_sparse(yard: Yard) -> None:
    """What was used fades at a quarter of the pace at which the one who is served in turn uses the box."""
    await yard.window(slots=2, sparse_cost_max=100)

    async def spent() -> object:
        return await yard.redis.hget(f"{yard.prefix}flow:guest", "spent")

    for _ in range(4):
        await yard.ask("hog", prompt=400, answer=0)
    first = await yard.ask("guest", prompt=90, answer=0)
    await yard.end((await yard.running())[0])
    assert first in await yard.running()
    assert await spent() == "90000"
    # The hog is served twice more while the guest's answer grows: 800 units, a quarter of which is more than 90.
    for _ in range(2):
        await yard.end(next(name for name in await yard.running() if name != first))
    second = await yard.ask("guest", prompt=90, answer=0)
    assert await spent() == "0"
    await yard.end(next(name for name in await yard.running() if name != first))
    assert await yard.running() == [first, second]


async def test_a_light_batch_leaves_a_slot_to_the_next_light_flow(yard: Yard) -> None:
    """Of the kept slots a flow may fill all but one, though it has used next to nothing."""
    await yard.window(slots=40, reserved_slots=3, sparse_cost_max=4_096, is_reserve_standing=True)
    batch = [await yard.ask("batch", prompt=1, answer=0) for _ in range(41)]
    assert await yard.running() == batch[:39]
    guest = await yard.ask("guest", prompt=1, answer=0)
    assert await yard.running() == [*batch[:39], guest]


async def test_a_sparse_flow_is_ranked_a_quantum_ahead(yard: Yard) -> None:
    """Who asks now and then is not overtaken while the first of two answers runs."""
    await yard.window(slots=1, sparse_cost_max=400)
    for _ in range(3):
        await yard.ask("hog", prompt=500)
    first = await yard.ask("guest", prompt=100)
    await yard.end((await yard.running())[0])
    assert await yard.running() == [first]
    second = await yard.ask("guest", prompt=100)
    await yard.stream(first, 50)
    await yard.end(first)
    assert await yard.running() == [second]


# Prompt tokens ahead of their first token.


async def test_prompts_are_read_one_after_the_other(yard: Yard) -> None:
    """What is dispatched without a first token stays within the engine's step; a first token lets the next in."""
    await yard.window(slots=8, prefill_tokens_max=100)
    names = [await yard.ask("ann", prompt=60) for _ in range(3)]
    assert await yard.running() == names[:1]
    assert await yard.held("prefill") == 60
    await yard.stream(names[0], 1)
    assert await yard.running() == names[:2]
    assert await yard.news() == [("run", names[1])]
    # Later tokens free nothing more.
    await yard.stream(names[0], 10)
    assert await yard.running() == names[:2]
    assert await yard.held("prefill") == 60


async def test_one_prompt_is_always_let_in(yard: Yard) -> None:
    """A prompt longer than the step enters when no other is being read, and alone."""
    await yard.window(slots=8, prefill_tokens_max=100)
    small = await yard.ask("ann", prompt=10)
    long = await yard.ask("ann", prompt=5_000)
    after = await yard.ask("ann", prompt=10)
    assert await yard.running() == [small]
    await yard.stream(small, 1)
    assert await yard.running() == [small, long]
    await yard.stream(long, 1)
    assert await yard.running() == [small, long, after]


@pytest.mark.parametrize("how", ["end", "cancel", "reap"])
async def test_a_prompt_that_ends_without_a_token_is_not_held(yard: Yard, how: str) -> None:
    """However a request goes before its first token, the next prompt is read."""
    await yard.window(slots=8, prefill_tokens_max=50)
    await yard.pass_ms(1_000)
    first = await yard.ask("ann", prompt=40, replica="other" if how == "reap" else "one")
    second = await yard.ask("ann", prompt=40)
    if how == "end":
        await yard.end(first, outcome="cancelled")
    elif how == "cancel":
        await yard.ledger.cancel(first)
    else:
        for _ in range(4):
            await yard.ledger.charge("one", [])
            yard.ledger.now_ms = yard.now_ms + 2_000
            await yard.ledger.reap()
    assert await yard.running() == [second]
    assert await yard.held("prefill") == 40


async def test_sparse_flows_are_free_of_the_prefill_gate(yard: Yard) -> None:
    """A guest's prompt is read beside a long one."""
    await yard.window(slots=8, prefill_tokens_max=100, sparse_cost_max=1_000)
    hog = [await yard.ask("hog", prompt=1_000) for _ in range(2)]
    guest = await yard.ask("guest", prompt=90)
    assert await yard.running() == [hog[0], guest]


# Memory.


async def test_answers_that_are_set_aside_at_once_fit_together(yard: Yard) -> None:
    """An engine that reserves whole answers gets as many as its memory holds, less a little; an end makes room."""
    await yard.window(slots=8, kv_tokens=1_000, books_whole_answers=True)
    names = [await yard.ask("ann", prompt=100, answer=200) for _ in range(5)]
    assert await yard.running() == names[:3]
    assert await yard.held("kv") == 900
    await yard.stream(names[0], 150)
    assert await yard.held("kv") == 900
    await yard.end(names[0])
    assert await yard.running() == names[1:4]


async def test_memory_fills_as_answers_grow(yard: Yard) -> None:
    """Prompts that fit enter; once the answers have grown into the pool the next one waits for an end."""
    await yard.window(slots=8, kv_tokens=1_000)
    names = [await yard.ask("ann", prompt=200, answer=500) for _ in range(3)]
    assert await yard.running() == names
    for name in names:
        await yard.stream(name, 100)
    assert await yard.held("kv") == 900
    names.append(await yard.ask("ann", prompt=200, answer=500))
    assert await yard.queued() == names[3:]
    await yard.end(names[0])
    assert await yard.running() == names[1:]


async def test_a_request_larger_than_the_memory_runs_alone(yard: Yard) -> None:
    """Our number may be wrong, so an idle engine is always given something."""
    await yard.window(slots=8, kv_tokens=100)
    first = await yard.ask("ann", prompt=500)
    await yard.ask("ann", prompt=1)
    assert await yard.running() == [first]


async def test_sparse_flows_may_fill_the_pool(yard: Yard) -> None:
    """The last twentieth of the memory is theirs."""
    await yard.window(slots=8, kv_tokens=1_000, sparse_cost_max=500)
    await yard.ask("hog", prompt=900, answer=0)
    hog = await yard.ask("hog", prompt=80, answer=0)
    guest = await yard.ask("guest", prompt=80, answer=0)
    assert guest in await yard.running()
    assert await yard.queued() == [hog]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200), st.booleans()), min_size=1, max_size=12),
    st.booleans(),
    st.sampled_from([0, 200]),
)
async def test_nothing_is_held_when_nothing_runs(
    redis: Redis, requests: list[tuple[int, int, bool]], books_whole_answers: bool, prefill: int
) -> None:
    """Whatever entered, grew, was cancelled and ended: prefill and memory are empty in the end, and no slot is used."""
    yard = Yard(redis)
    await yard.window(slots=3, kv_tokens=900, books_whole_answers=books_whole_answers, prefill_tokens_max=prefill)
    lengths = {}
    for number, (prompt, answer, leaves) in enumerate(requests):
        name = await yard.ask(f"u{number % 3}", prompt=prompt, answer=answer)
        lengths[name] = answer
        if leaves:
            await yard.ledger.cancel(name)
    while running := await yard.running():
        for name in running:
            await yard.stream(name, lengths[name])
        await yard.end(running[0])
    assert await yard.queued() == []
    assert [await yard.held(kind) for kind in ("slots", "prefill", "kv")] == [0, 0, 0]


# Revocation.


async def test_the_youngest_revocable_lease_of_the_richest_is_taken_for_a_guest(yard: Yard) -> None:
    """Firm leases and those of poorer flows stay; its replica is told once, and again with each report."""
    await yard.window(slots=4, sparse_cost_max=100)
    poor = await yard.ask("poor", prompt=150, is_revocable=True)
    rich = [await yard.ask("rich", prompt=500, is_revocable=is_revocable) for is_revocable in (True, True, False)]
    guest = await yard.ask("guest")
    assert await yard.news() == [("revoke", rich[1])]
    assert await yard.stream(rich[1], 1) == "revoked"
    assert await yard.stream(rich[1], 1) == "revoked"
    assert [await yard.stream(name, 1) for name in (poor, rich[0], rich[2])] == ["running"] * 3
    assert await yard.queued() == [guest]
    await yard.end(rich[1], outcome="revoked")
    assert guest in await yard.running()
    assert await yard.news() == [("run", guest)]


async def test_leases_are_taken_one_at_a_time(yard: Yard) -> None:
    """While one is ending no other is told; the next guest in need has the next one taken."""
    await yard.window(slots=3, sparse_cost_max=100)
    hog = [await yard.ask("hog", prompt=500, is_revocable=True) for _ in range(3)]
    guests = [await yard.ask(user) for user in ("one", "two")]
    assert await yard.news() == [("revoke", hog[2])]
    await yard.end(hog[2], outcome="revoked")
    assert await yard.news() == [("run", guests[0]), ("revoke", hog[1])]
    await yard.end(hog[1], outcome="revoked")
    assert await yard.running() == [hog[0], *guests]
    assert await yard.news() == [("run", guests[1])]


async def test_no_lease_is_taken_for_heavy_or_revocable_requests(yard: Yard) -> None:
    """Who is not sparse waits for a slot like everybody, and so does a request that may itself be stopped."""
    await yard.window(slots=2, sparse_cost_max=100)
    hog = [await yard.ask("hog", prompt=500, is_revocable=True) for _ in range(2)]
    await yard.ask("guest", is_revocable=True)
    await yard.ask("hog", prompt=10)
    assert await yard.news() == []
    assert await yard.running() == hog


async def test_a_lease_is_taken_where_memory_is_short(yard: Yard) -> None:
    """Whatever it is that the guest lacks, the place of the one that may be stopped has it."""
    await yard.window(slots=4, kv_tokens=1_000, sparse_cost_max=100)
    hog = await yard.ask("hog", prompt=970, is_revocable=True)
    guest = await yard.ask("guest", prompt=50)
    assert await yard.news() == [("revoke", hog)]
    await yard.end(hog, outcome="revoked")
    assert await yard.running() == [guest]


async def test_a_record_that_is_lost_gives_its_place_back(yard: Yard) -> None:
    """In a Redis that evicts keys a running request may vanish: its slot, prompt and memory are free a lease later."""
    await yard.window(slots=2, prefill_tokens_max=10, kv_tokens=500)
    await yard.pass_ms(1_000)
    lost = await yard.ask("ann", prompt=300, answer=0)
    await yard.redis.delete(f"{yard.prefix}request:{lost}")
    for _ in range(4):
        yard.ledger.now_ms = yard.now_ms + 2_000
        await yard.ledger.reap()
    assert await yard.running() == []
    assert [await yard.held(kind) for kind in ("slots", "prefill", "kv")] == [0, 0, 0]
    names = [await yard.ask("bob", prompt=4, answer=0) for _ in range(2)]
    assert await yard.running() == names


async def test_a_revoked_lease_that_its_replica_never_ends_does_not_stop_others(yard: Yard) -> None:
    """Its replica dies: the lease runs out, the guest runs, and another may be taken later."""
    await yard.window(slots=1, sparse_cost_max=100)
    await yard.pass_ms(1_000)
    hog = await yard.ask("hog", prompt=500, is_revocable=True, replica="dead")
    guest = await yard.ask("guest")
    assert await yard.news("dead") == [("revoke", hog)]
    for _ in range(4):
        await yard.ledger.charge("one", [])
        yard.ledger.now_ms = yard.now_ms + 2_000
        await yard.ledger.reap()
    assert await yard.running() == [guest]
    assert await yard.redis.scard(f"{yard.prefix}revoked:a") == 0


async def test_a_lease_that_ends_by_itself_is_no_longer_revocable(yard: Yard) -> None:
    """The next guest has one taken that is there."""
    await yard.window(slots=2, sparse_cost_max=100)
    hog = [await yard.ask("hog", prompt=500, is_revocable=True) for _ in range(2)]
    await yard.end(hog[1])
    first = await yard.ask("one")
    await yard.ask("two")
    assert await yard.news() == [("revoke", hog[0])]
    assert await yard.running() == [hog[0], first]


# The outer loop.


async def _trim(yard: Yard, *, waiting: int = 0, preempted: int = 0, after_ms: int = TRIM_EVERY_MS) -> int:
    await yard.pass_ms(after_ms, reaps=False)
    return await yard.ledger.trim("a", waiting=waiting, preempted=preempted)


async def test_an_engine_that_queues_is_given_a_tenth_less(yard: Yard) -> None:
    """Every five seconds at the most, and never less than four."""
    await yard.window(slots=40)
    assert await _trim(yard, waiting=3) == 36
    assert await _trim(yard, waiting=9, after_ms=TRIM_EVERY_MS - 1) == 36
    assert await _trim(yard, waiting=9, after_ms=1) == 32
    found = [await _trim(yard, waiting=9) for _ in range(30)]
    assert found[-1] == min(found) == 4


async def test_a_request_or_two_at_the_door_is_no_queue(yard: Yard) -> None:
    """An engine takes in a little before a slot is free."""
    await yard.window(slots=40)
    assert [await _trim(yard, waiting=waiting) for waiting in (1, 2, 0)] == [40, 40, 40]


async def test_preemptions_trim_when_they_grow(yard: Yard) -> None:
    """Those of before we looked are not held against it; a counter that falls back (a restart) is no preemption."""
    await yard.window(slots=40)
    assert [await _trim(yard, preempted=total) for total in (7, 7, 8, 8, 0, 0, 1)] == [40, 40, 36, 36, 36, 36, 32]


async def test_slots_come_back_while_we_queue_and_the_engine_does_not(yard: Yard) -> None:
    """Three percent, at least one, each time; up to the slots that it has, and only if somebody would use them."""
    await yard.window(slots=40)
    for _ in range(5):
        await _trim(yard, waiting=9)
    low = await _trim(yard)
    assert low == 22
    assert await _trim(yard) == 22
    for _ in range(60):
        await yard.ask("ann")
    assert len(await yard.running()) == 22
    assert await _trim(yard, waiting=1) == 22
    assert await _trim(yard) == 23
    assert len(await yard.running()) == 23
    found = [await _trim(yard) for _ in range(30)]
    assert found[-1] == max(found) == 40
    assert len(await yard.running()) == 40


async def test_a_smaller_engine_is_trimmed_within_its_slots(yard: Yard) -> None:
    """One with fewer than four keeps those it has; one that shrinks is given no more than it has left."""
    await yard.window(slots=2)
    assert [await _trim(yard, waiting=9) for _ in range(3)] == [2, 2, 2]
    await yard.window(slots=40)
    assert await _trim(yard, waiting=9) >= 4
    await yard.window(slots=3)
    for _ in range(9):
        await yard.ask("ann")
    assert len(await yard.running()) <= 3


async def test_an_engine_that_came_back_larger_may_grow(yard: Yard) -> None:
    """Slots that were trimmed grow with use to the new number; until then the old ones count."""
    await yard.window(slots=4)
    await _trim(yard, waiting=9)
    await yard.window(slots=8)
    for _ in range(20):
        await yard.ask("ann")
    found = [await _trim(yard) for _ in range(6)]
    assert found[-1] == 8


async def test_words_of_an_engine_that_is_not_known_change_nothing(yard: Yard) -> None:
    """No window, no slots, no failure."""
    assert await _trim(yard, waiting=9) == 0
    assert await yard.redis.keys(f"{yard.prefix}window:*") == []
