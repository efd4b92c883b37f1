"""Fair sharing, by the scripts themselves in virtual time: whose turn it is, and what everybody gets in the end."""

import random
from collections.abc import Callable
from itertools import cycle, permutations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from quotas.policy import Limits
from tests.quotas.yard import Race, Yard

NAMES = ("zed", "ann", "mia")
sizes = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 10)), min_size=1, max_size=4)
seeds = st.integers(0, 1 << 30)
slots = st.integers(1, 5)
quanta = st.sampled_from([0, 40])


def in_redis(examples: int) -> Callable[..., settings]:
    """Hypothesis with as many examples as a real Redis is asked for; each has a box of its own."""
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@pytest.fixture
def yard(redis: Redis) -> Yard:
    """A box."""
    return Yard(redis)


@pytest.mark.parametrize("sparse_cost_max", [0, 4096])
@pytest.mark.parametrize("order", [*permutations(NAMES)])
async def test_newcomers_go_before_a_hog_in_order_of_arrival(
    yard: Yard, order: tuple[str, ...], sparse_cost_max: int
) -> None:
    """Whoever has just come is next, the first first, whatever they are called; then the one with many requests."""
    await yard.window(slots=1, sparse_cost_max=sparse_cost_max)
    for _ in range(6):
        await yard.ask("hog", prompt=3_000)
    for user in order:
        await yard.ask(user)
    assert await yard.turns() == ["hog", *order, *("hog",) * 5]


async def test_one_person_waits_in_the_order_of_arrival(yard: Yard) -> None:
    """Long and short, on whichever replica: requests of one flow never pass each other."""
    await yard.window(slots=1)
    names = [
        await yard.ask("ann", prompt=prompt, replica=replica)
        for prompt, replica in zip([500, 1, 90, 2, 1_000], cycle(["one", "two"]))
    ]
    for name in names:
        assert await yard.running() == [name]
        await yard.end(name)


async def test_two_who_ask_in_turn_are_served_in_turn(yard: Yard) -> None:
    """Equal requests of two who both have many waiting alternate."""
    await yard.window(slots=1)
    for user in ("ann", "ann", "ann", "ann", "bob", "bob", "bob", "bob"):
        await yard.ask(user)
    order = await yard.turns()
    assert [order[at : at + 2] for at in range(1, 7, 2)] == [["bob", "ann"]] * 3


async def test_who_was_away_has_no_credit(yard: Yard) -> None:
    """An hour of somebody else's work later a newcomer goes first once, and then takes turns."""
    await yard.window(slots=1)
    await yard.ask("cid")
    await yard.turns()
    for _ in range(50):
        await yard.ask("bob", prompt=100)
    for _ in range(30):
        name = (await yard.running())[0]
        await yard.stream(name, 50)
        await yard.end(name)
    for user in ("cid", "new") * 5:
        await yard.ask(user, prompt=100)
    order = await yard.turns(tokens=50)
    assert set(order[1:3]) == {"cid", "new"}
    for at in range(1, 13, 3):
        assert set(order[at : at + 3]) == {"bob", "cid", "new"}, order


async def test_who_returns_with_debts_keeps_them(yard: Yard) -> None:
    """Leaving and coming back does not wash a counter: who had more than the others still waits for them."""
    await yard.window(slots=1)
    await yard.ask("ann", prompt=100)
    hog = await yard.ask("hog", prompt=100)
    await yard.ask("ann", prompt=100)
    await yard.end((await yard.running())[0])
    assert await yard.running() == [hog]
    await yard.stream(hog, 1_000)
    await yard.end(hog)
    assert await yard.users() == ["ann"]
    for user in ("ann", "hog", "ann", "ann"):
        await yard.ask(user, prompt=100)
    assert await yard.turns(tokens=50) == ["ann"] * 4 + ["hog"]


@in_redis(25)
@given(st.lists(sizes, min_size=2, max_size=4), slots, quanta, seeds)
async def test_two_who_wait_are_never_further_apart_than_the_engine_is_wide(
    redis: Redis, several: list[list[tuple[int, int]]], width: int, quantum: int, seed: int
) -> None:
    """At no moment has one who waits had more than another by more than a full engine and a quantum.

    Whoever begins has the smallest counter, but for a quantum while sparse; from then on only what it has running can
    put it ahead: as many requests as there are slots, each at its largest.
    """
    race = Race(Yard(redis), {f"flow{number}": each for number, each in enumerate(several)}, random.Random(seed))  # noqa: S311
    await race.begin(slots=width, sparse_cost_max=quantum)
    bound = race.cost_max * width + quantum
    for _ in range(70):
        await race.step()
        got = [race.service[f"flow{number}"] for number in range(len(several))]
        assert max(got) - min(got) <= bound + 1


@in_redis(15)
@given(st.lists(sizes, min_size=4, max_size=4), slots, quanta, seeds)
async def test_service_is_as_the_weights(
    redis: Redis, several: list[list[tuple[int, int]]], width: int, quantum: int, seed: int
) -> None:
    """Four who always wait get 1 : 1 : 2 : 4, whatever the sizes of their requests, but for what the engine holds."""
    weights = {"ann": 100, "bob": 100, "cid": 200, "dot": 400}
    race = Race(Yard(redis), dict(zip(weights, several, strict=True)), random.Random(seed))  # noqa: S311
    race.limits = {flow: Limits(weight=weight, queue_length_max=None) for flow, weight in weights.items()}
    await race.begin(slots=width, sparse_cost_max=quantum)
    for _ in range(120):
        await race.step()
        shares = {flow: race.service[flow] * 100 / weight for flow, weight in weights.items()}
        for flow, share in shares.items():
            bound = race.cost_max * width * 100 / weights[flow] + quantum
            # A part of a counter unit is lost with each charge.
            assert share - min(shares.values()) <= bound + 1, shares


async def test_in_the_long_run_weights_are_exact(redis: Redis) -> None:
    """A hundred times the bound later shares are 1 : 1 : 2 : 4 within a percent or two."""
    weights = {"ann": 100, "bob": 100, "cid": 200, "dot": 400}
    several: dict[str, list[tuple[int, int]]] = {
        "ann": [(5, 1)],
        "bob": [(1, 2)],
        "cid": [(9, 1), (1, 3)],
        "dot": [(2, 4)],
    }
    race = Race(Yard(redis), several, random.Random(11))  # noqa: S311 (a schedule, no secret)
    race.limits = {flow: Limits(weight=weight, queue_length_max=None) for flow, weight in weights.items()}
    await race.begin(slots=2)
    for _ in range(900):
        await race.step()
    shares = [race.service[flow] / weight for flow, weight in weights.items()]
    assert max(shares) / min(shares) < 1.05, shares


@in_redis(25)
@given(sizes, slots, quanta, st.lists(st.integers(0, 30), min_size=2, max_size=5), seeds)
async def test_idling_gains_nothing(
    redis: Redis, size: list[tuple[int, int]], width: int, quantum: int, pauses: list[int], seed: int
) -> None:
    """Who comes and goes has, after each return, no more than one who stayed; but for what the engine holds.

    Counters of those who wait lie within the bound of the other rule; a return begins at the smallest, less one unit.
    """
    race = Race(Yard(redis), dict.fromkeys(("idler", "stays", "hog"), size), random.Random(seed))  # noqa: S311
    await race.begin(slots=width, sparse_cost_max=quantum)
    bound = 2 * (race.cost_max * width + quantum) + 1
    for number, pause in enumerate(pauses):
        before = dict(race.service)
        race.resting = {"idler"} if number % 2 else set()
        for _ in range(pause):
            await race.step()
            if not number % 2:
                gained = {flow: race.service[flow] - before.get(flow, 0) for flow in ("idler", "stays")}
                assert gained["idler"] - gained["stays"] <= bound, gained
    assert race.service["idler"] - race.service["stays"] <= bound


async def test_asking_one_at_a_time_gains_nothing(redis: Redis) -> None:
    """Somebody who is idle after each answer, and so sparse again, gets no more in sum than one who always waits."""
    yard = Yard(redis)
    race = Race(yard, {"sly": [(10, 5)], "stays": [(10, 5)]}, random.Random(3))  # noqa: S311
    race.resting = {"sly"}
    await race.begin(slots=2, sparse_cost_max=40, reserved_slots=1)
    name = ""
    for _ in range(300):
        if name not in (await yard.running()) + (await yard.queued()):
            name = await race.ask("sly")
        await race.step()
        assert race.service["sly"] - race.service["stays"] <= race.cost_max * 2 + 40 + 1


async def test_four_keys_of_one_person_are_one_flow(redis: Redis) -> None:
    """Who asks with four keys gets as much as who asks with one."""
    yard = Yard(redis)
    race = Race(yard, {"ann": [(5, 5)], "bob": [(5, 5)]}, random.Random(5))  # noqa: S311
    race.keys = {"ann": cycle(["k1", "k2", "k3", "k4"])}
    await race.begin(slots=2)
    for _ in range(150):
        await race.step()
        assert abs(race.service["ann"] - race.service["bob"]) <= race.cost_max * 2
    assert {entry.key for entry in yard.entries.values() if entry.user == "ann"} == {"k1", "k2", "k3", "k4"}


async def test_weight_that_changes_holds_from_the_next_request(yard: Yard) -> None:
    """What was charged stays; what is charged from then on counts by the new weight."""
    await yard.window(slots=1)
    first = await yard.ask("ann", prompt=100)
    assert await yard.served("ann") == 100_000
    await yard.end(first)
    await yard.ask("ann", prompt=100, limits=Limits(weight=400))
    assert await yard.served("ann") == 125_000


async def test_who_has_as_many_running_as_allowed_waits_while_others_go_on(yard: Yard) -> None:
    """In-flight limits hold back their own flow only; each end lets one more run, and waiting earns no credit."""
    await yard.window(slots=4)
    one = Limits(in_flight_max=1)
    ann = [await yard.ask("ann", limits=one) for _ in range(3)]
    bob = [await yard.ask("bob", prompt=200) for _ in range(5)]
    assert await yard.running() == [ann[0], *bob[:3]]
    await yard.end(bob[0])
    assert await yard.running() == [ann[0], *bob[1:4]]
    await yard.end(ann[0])
    assert await yard.running() == [ann[1], *bob[1:4]]
    # She was lifted to bob when she could run again, so after one more it is his turn.
    assert await yard.served("ann") == 800_000 - 1_000 + 10_000
    await yard.end(ann[1])
    assert await yard.running() == bob[1:]


async def test_an_in_flight_limit_counts_on_all_engines(yard: Yard) -> None:
    """One running on either engine is as many as one may; its end lets the next run on the other."""
    for engine in ("a", "b"):
        await yard.window(engine, slots=2)
    one = Limits(in_flight_max=1)
    first = await yard.ask("ann", engine="a", limits=one)
    second = await yard.ask("ann", engine="b", limits=one)
    assert (await yard.running("a"), await yard.running("b")) == ([first], [])
    await yard.end(first)
    assert (await yard.running("a"), await yard.running("b")) == ([], [second])


async def test_an_in_flight_limit_that_is_lifted_lets_more_run(yard: Yard) -> None:
    """The newest request brings the limits that are in force."""
    await yard.window(slots=4)
    names = [await yard.ask("ann", limits=Limits(in_flight_max=1)) for _ in range(3)]
    names.append(await yard.ask("ann"))
    assert await yard.running() == names


async def test_what_is_used_on_one_engine_counts_on_the_other(yard: Yard) -> None:
    """They share the box: who has had much of one is behind on the other."""
    for engine in ("a", "b"):
        await yard.window(engine, slots=1)
    holders = [await yard.ask("cid", engine=engine) for engine in ("a", "b")]
    waiting = [await yard.ask(user, engine=engine) for user in ("ann", "bob") for engine in ("a", "b")]
    ann_a, ann_b, _, bob_b = waiting
    await yard.end(holders[0])
    assert await yard.running("a") == [ann_a]
    await yard.stream(ann_a, 500)
    await yard.end(holders[1])
    assert await yard.running("b") == [bob_b]
    await yard.end(bob_b)
    assert await yard.running("b") == [ann_b]


async def test_no_engine_idles_for_the_other(yard: Yard) -> None:
    """The poorest may be stuck at one engine: the other still takes whoever waits there."""
    await yard.window("a", slots=1)
    await yard.window("b", slots=2)
    await yard.ask("hog", engine="a")
    poor = await yard.ask("poor", engine="a")
    rich = await yard.ask("rich", engine="b", prompt=900)
    more = await yard.ask("rich", engine="b", prompt=900)
    assert await yard.running("b") == [rich, more]
    assert await yard.queued("a") == [poor]


async def test_a_head_that_does_not_fit_is_not_passed(yard: Yard) -> None:
    """To skip it would let cheap requests pass dear ones, and weights would mean nothing."""
    await yard.window(slots=4, kv_tokens=1_000)
    await yard.ask("hog", prompt=600, answer=0)
    big = await yard.ask("ann", prompt=700, answer=0)
    small = await yard.ask("hog", prompt=1, answer=0)
    assert await yard.queued() == [big, small]


async def test_a_request_that_leaves_gives_its_cost_back(yard: Yard) -> None:
    """Who is cancelled before a token was streamed has used nothing of its share."""
    await yard.window(slots=1)
    await yard.ask("hog")
    waits = await yard.ask("ann", prompt=500)
    before = await yard.served("ann")
    await yard.end((await yard.running())[0])
    assert await yard.served("ann") == before + 500_000
    await yard.ledger.cancel(waits)
    assert await yard.served("ann") == before
    assert await yard.running() == []


async def test_the_engines_own_count_corrects_the_estimate(yard: Yard) -> None:
    """At the end the counter holds what it cost in truth, also where that is less than was charged."""
    await yard.window(slots=1)
    name = await yard.ask("ann", prompt=1_000)
    assert await yard.served("ann") == 1_000_000
    counts = {"input_tokens": 40, "output_tokens": 0}
    await yard.ledger.finish(name, "a", {"id": name, "outcome": "cancelled", **counts}, cost=40)
    assert await yard.served("ann") == 40_000
