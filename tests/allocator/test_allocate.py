"""How large a council is: rules that hold under any load, and examples with numbers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from server.allocator.allocate import SIZE_MAX, Allocation, Demand, Load, Policy, allocate, room
from server.allocator.contention import Contention
from tests.allocator.loads import GIB, candidate, contentions, demands, idle, loads, policies, worse

SIX = ("ada", "bob", "cid", "dot", "eve", "fay")
LAW = Contention()


def can_answer(load: Load, policy: Policy) -> bool:
    """Whether any of those that were named is there."""
    return not policy.members or any(each.model in policy.members for each in load.candidates)


def engines_of(allocation: Allocation, load: Load, box: str) -> set[str]:
    """Those of this box that it uses."""
    boxes = {(each.model, each.engine): each.box for each in load.candidates}
    return {each.engine for each in allocation.members if boxes[each.model, each.engine] == box}


@settings(max_examples=200, deadline=None)
@given(st.data(), demands, loads(), policies, contentions, st.none() | st.integers(1, 6))
def test_a_council_never_grows_when_the_load_gets_worse(
    data: st.DataObject, demand: Demand, load: Load, policy: Policy, contention: Contention, ceiling: int | None
) -> None:
    """Whichever input it is, and also where several get worse one after the other."""
    if not can_answer(load, policy):
        return
    before = allocate(demand, load, policy, contention, ceiling)
    ways = []
    for _ in range(data.draw(st.integers(1, 3))):
        what, demand, load = data.draw(worse(demand, load))
        ways.append(what)
    after = allocate(demand, load, policy, contention, ceiling)
    assert after.size <= before.size, (ways, before.reason, after.reason)


@settings(max_examples=100, deadline=None)
@given(demands, loads(), policies, contentions, st.none() | st.integers(1, 6))
def test_a_council_keeps_every_limit(
    demand: Demand, load: Load, policy: Policy, contention: Contention, ceiling: int | None
) -> None:
    """Of policy, quota, steadiness, slots, memory, speed, contention and the first token."""
    if not can_answer(load, policy):
        return
    found = allocate(demand, load, policy, contention, ceiling)
    assert found.size == len(found.members) >= 1
    assert found.size <= max(1, min(policy.size_max, SIZE_MAX, found.wanted))
    assert found.size <= max(1, ceiling or SIZE_MAX)
    assert policy.tokens_left is None or found.size in {
        1,
        *range(policy.tokens_left // (demand.prompt_tokens + demand.answer_tokens) + 1),
    }
    if found.size == 1:
        assert found.chair is None
        return
    by_place = {(each.model, each.engine): each for each in load.candidates}
    sitting = [by_place[each.model, each.engine] for each in found.members]
    assert found.predicted.first_token_ms <= policy.first_token_ms_max
    assert found.predicted.tokens_per_s >= policy.tokens_per_s_min
    for engine in {each.engine for each in sitting}:
        same = [each for each in load.candidates if each.engine == engine]
        taken = max(each.running for each in same) + max(each.waiting for each in same)
        assert sum(each.engine == engine for each in sitting) <= min(each.slots for each in same) - taken
    for box in {each.box for each in sitting}:
        together = engines_of(found, load, box) | load.busy_engines[box]
        assert len(together) <= contention.best_size()
        cold = {each for each in sitting if not each.is_resident and each.box == box}
        needed = sum(each.memory_bytes for each in cold) + policy.reserve_bytes
        assert not cold or needed <= (load.free_bytes[box] or 0)
    names = {each.model for each in found.members}
    assert not policy.members or names <= set(policy.members)
    assert not policy.samples_only or len(names) == 1
    if not policy.members:
        best = max(each.quality for each in load.candidates)
        assert all(best - each.quality <= policy.quality_gap_max + 1e-9 for each in sitting)


LIFTED = {
    "speed": lambda demand, load, policy: (
        demand,
        replace(load, slowest_tokens_per_s=None),
        replace(policy, tokens_per_s_min=0.0),
    ),
    "memory": lambda demand, load, policy: (
        demand,
        replace(load, candidates=tuple(replace(each, is_resident=True) for each in load.candidates)),
        policy,
    ),
    "waiting": lambda demand, load, policy: (
        demand,
        replace(
            load,
            waiting_others=0,
            expected_requests=0.0,
            candidates=tuple(replace(each, slots=99, running=0, waiting=0, wait_ms=0) for each in load.candidates),
        ),
        policy,
    ),
    "first_token": lambda demand, load, policy: (demand, load, replace(policy, first_token_ms_max=10**9)),
    "worth": lambda demand, load, policy: (demand, load, replace(policy, size_wanted=policy.size_max)),
    "policy": lambda demand, load, policy: (demand, load, replace(policy, size_max=SIZE_MAX, size_wanted=SIZE_MAX)),
    "quota": lambda demand, load, policy: (demand, load, replace(policy, tokens_left=None)),
    "quality": lambda demand, load, policy: (demand, load, replace(policy, quality_gap_max=1.0)),
    "models": lambda demand, load, policy: (
        demand,
        replace(load, candidates=tuple(replace(each, context_tokens_max=None) for each in load.candidates)),
        replace(policy, samples=True, members=(), size_wanted=policy.size_wanted or len(policy.members)),
    ),
}


@settings(max_examples=150, deadline=None)
@given(demands, loads(), policies, st.sampled_from([LAW, Contention(total=2.5)]), st.none() | st.integers(1, 6))
def test_the_reason_names_what_binds(
    demand: Demand, load: Load, policy: Policy, contention: Contention, ceiling: int | None
) -> None:
    """There is always a sentence; and without what it names the council is larger, or something else binds."""
    if not can_answer(load, policy):
        return
    found = allocate(demand, load, policy, contention, ceiling)
    assert found.reason.startswith(f"{found.size} of {found.wanted}: ")
    assert found.reason.endswith(".")
    assert "\n" not in found.reason
    if found.binding == "wanted":
        assert found.size == found.wanted
        return
    if found.binding == "steady":
        assert found.size == ceiling
        assert allocate(demand, load, policy, contention).size > found.size
        return
    again = allocate(*LIFTED[found.binding](demand, load, policy), contention, ceiling)
    assert again.size > found.size or again.binding != found.binding, (found.reason, again.reason)


@settings(max_examples=100, deadline=None)
@given(demands, loads(), policies, contentions)
def test_who_leads_and_who_chairs(demand: Demand, load: Load, policy: Policy, contention: Contention) -> None:
    """One leads, first in the list; samples are numbered; nothing depends on the order in which models are told."""
    if not can_answer(load, policy):
        return
    found = allocate(demand, load, policy, contention)
    assert [each.is_leader for each in found.members] == [True] + [False] * (found.size - 1)
    for model in {each.model for each in found.members}:
        samples = [each.sample for each in found.members if each.model == model]
        assert samples == list(range(len(samples)))
    again = allocate(demand, replace(load, candidates=load.candidates[::-1]), policy, contention)
    assert again == found
    assert (found.chair is None) == (found.size == 1)


@pytest.mark.parametrize("models", range(1, 7))
def test_an_idle_box_gives_the_largest_council(models: int) -> None:
    """Of several models first, then of more answers of one, as far as slots go."""
    found = allocate(Demand(), idle(*SIX[:models], slots=8), Policy(), LAW)
    assert (found.size, found.binding) == (6, "policy")
    assert len({each.model for each in found.members}) == models


@pytest.mark.parametrize(
    ("running", "size", "binding"), [(0, 6, "policy"), (1, 2, "worth"), (2, 1, "worth"), (4, 1, "worth")]
)
def test_the_size_follows_the_load(running: int, size: int, binding: str) -> None:
    """Nearly all that a council brings is the second opinion, so that is what remains when others come."""
    found = allocate(Demand(), idle(*SIX, running=running), Policy(), LAW)
    assert (found.size, found.binding) == (size, binding)


@pytest.mark.parametrize(("wanted", "size_max", "size"), [(6, 2, 2), (8, 6, 6), (64, 64, 16), (3, 1, 1)])
def test_policy_bounds_what_is_wanted(wanted: int, size_max: int, size: int) -> None:
    """On an idle box with room for anything; and sixteen is the most in any case."""
    found = allocate(Demand(), idle(*SIX, slots=99), Policy(size_wanted=wanted, size_max=size_max), LAW)
    assert (found.size, found.wanted, found.binding) == (size, wanted, "policy")


@pytest.mark.parametrize(("size", "times"), [(2, 2.3), (3, 3.0), (4, 3.7), (6, 5.0)])
def test_a_council_takes_as_long_as_the_reference_says(size: int, times: float) -> None:
    """400 tokens at 100 a second, read at 2500 a second, by the saturation law, in times of one model alone."""
    demand = Demand(prompt_tokens=0, answer_tokens=400)
    found = allocate(demand, idle(*SIX[:size]), Policy(size_wanted=size), LAW)
    alone = allocate(demand, idle("ada"), Policy(size_wanted=1), LAW)
    assert found.predicted.total_ms / alone.predicted.total_ms == pytest.approx(times, abs=0.05)


def test_the_best_that_can_begin_leads() -> None:
    """The best would begin too late: the next best leads, and the best comes later."""
    slow = candidate("ada", quality=0.6, prefill_us=4_000.0)
    load = Load(candidates=(candidate("bob", quality=0.52), candidate("cid", quality=0.55), slow))
    policy = Policy(size_wanted=3, samples=False)
    found = allocate(Demand(), load, policy, LAW)
    assert [each.model for each in found.members] == ["cid", "ada", "bob"]
    quick = Load(candidates=(*load.candidates[:2], replace(slow, prefill_us=400.0)))
    assert allocate(Demand(), quick, policy, LAW).members[0].model == "ada"


def test_small_engines_share_what_is_more() -> None:
    """Two models with three slots each: three answers of each."""
    found = allocate(Demand(), idle("ada", "bob", slots=3), Policy(), LAW)
    assert sorted(each.model for each in found.members) == ["ada"] * 3 + ["bob"] * 3


def test_no_policy_leaves_nobody() -> None:
    """Whatever is written there, one model answers."""
    for policy in (Policy(size_max=0), Policy(size_max=-1, size_wanted=5), Policy(tokens_left=-5)):
        assert allocate(Demand(), idle("ada"), policy, LAW).size == 1


def test_streams_keep_their_rate() -> None:
    """Beside one stream of 25 tokens a second: by S / k two models leave .8 of it, which is 20, and three 13.3."""
    load = replace(idle(*SIX[1:]), busy_engines={"gpu0": frozenset({"other"})}, slowest_tokens_per_s=25.0)
    found = allocate(Demand(), load, Policy(size_wanted=3, samples=False), LAW)
    assert found.reason == "1 of 3: a second member would leave a stream below 15 tokens a second (13.3)."
    assert found.binding == "speed"
    assert (
        allocate(Demand(), replace(load, slowest_tokens_per_s=30.0), Policy(size_wanted=2, samples=False), LAW).size
        == 2
    )


def test_members_keep_their_rate() -> None:
    """Of models with 40 tokens a second four get 16 each, and five would get 12.8."""
    found = allocate(Demand(), idle(*SIX, decode_us=25_000.0), Policy(size_wanted=5, samples=False), LAW)
    assert found.reason.startswith("4 of 5: a fifth member would answer below 15 tokens a second")
    assert found.predicted.tokens_per_s == pytest.approx(16.0)


def test_a_fuller_box_is_no_better_reason() -> None:
    """By S / k a third engine leaves two others 2/3, a fourth one three others 3/4: 14.7 and 16.5 of 22, and yet."""
    sizes = []
    for busy in ({"x", "y"}, {"x", "y", "z"}):
        load = replace(idle("ada"), busy_engines={"gpu0": frozenset(busy)}, slowest_tokens_per_s=22.0)
        sizes.append(allocate(Demand(), load, Policy(size_wanted=2), LAW).size)
    assert sizes == [1, 1]


def test_answers_that_run_on_an_engine_count() -> None:
    """Two more answers beside fourteen keep .78 of 20 tokens a second, which is 15.6, and of 19 only 14.8."""
    load = idle("ada", slots=16, running=14, decode_us=1e6 / 20)
    assert allocate(Demand(), load, Policy(size_wanted=2), LAW).size == 2
    load = idle("ada", slots=16, running=14, decode_us=1e6 / 19)
    assert allocate(Demand(), load, Policy(size_wanted=2), LAW).binding == "speed"


def test_a_member_does_not_wait_long() -> None:
    """Its slot is free, but its turn would come in five seconds."""
    load = Load(candidates=(candidate("ada"), candidate("bob", wait_ms=5_000)))
    found = allocate(Demand(), load, Policy(size_wanted=2, samples=False), LAW)
    assert found.reason == "1 of 2: a second member, bob, would wait for 5.0 s."


def test_what_is_worth_it_does_not_ask_who_is_free() -> None:
    """Two equals are worth more than with a weaker third; when one of them is full, three weaker do not take over."""
    weaker = [candidate(model, quality=0.53) for model in ("cid", "dot")]
    for running in (0, 4):
        equal = candidate("bob", quality=0.55, running=running)
        load = Load(candidates=(candidate("ada", quality=0.55, slots=999), equal, *weaker))
        assert allocate(Demand(), load, Policy(samples=False), LAW).size == 2


def test_weak_models_are_replaced_by_answers_of_the_best() -> None:
    """Nine points below, another model adds next to nothing, and a second answer of the best does."""
    weak = [candidate(model, quality=0.46) for model in ("bob", "cid", "dot")]
    load = Load(candidates=(candidate("ada", quality=0.55, slots=8), *weak))
    found = allocate(Demand(), load, Policy(size_wanted=2), LAW)
    assert [each.model for each in found.members] == ["ada", "ada"]


def test_memory_bounds_what_is_loaded() -> None:
    """A model that is not there needs room beside the reserve, and where nothing is known nothing is loaded."""
    cold = candidate("bob", is_resident=False, memory_bytes=5 * GIB, load_ms=9_000)
    load = Load(candidates=(candidate("ada"), cold), free_bytes={"gpu0": 5 * GIB})
    policy = Policy(size_wanted=2, samples=False)
    found = allocate(Demand(), load, policy, LAW)
    assert found.reason == "1 of 2: a second member would need 5.0 GiB of memory on gpu0, which has 4.0 GiB left."
    assert allocate(Demand(), replace(load, free_bytes={"gpu0": 6 * GIB}), policy, LAW).size == 2
    unknown = allocate(Demand(), replace(load, free_bytes={}), policy, LAW)
    assert (unknown.size, unknown.binding) == (1, "memory")


def test_slots_that_others_wait_for_are_theirs() -> None:
    """Two wait somewhere on the box, and one is expected."""
    load = replace(idle(*SIX, slots=1), waiting_others=2, expected_requests=1.4)
    found = allocate(Demand(), load, Policy(size_wanted=5), LAW)
    assert (
        found.reason
        == "3 of 5: a fourth member would take a slot that others wait for or need soon (3 of the 6 that are free)."
    )
    assert found.steps == ("smaller_council",)


def test_a_late_leader_has_no_council() -> None:
    """A prompt of 8000 tokens takes 3.2 s to read: whoever is soonest answers alone, and that is told."""
    load = Load(candidates=(candidate("ada"), candidate("bob", prefill_us=390.0)))
    found = allocate(Demand(prompt_tokens=8_000), load, Policy(size_wanted=3), LAW)
    assert found.reason == "1 of 3: none could begin to answer within 2.0 s; the soonest is bob in 3.1 s."
    assert [each.model for each in found.members] == ["bob"]
    alone = allocate(Demand(prompt_tokens=8_000), load, Policy(size_wanted=1), LAW)
    assert alone.reason == "1 of 1: as many as were asked for, but nobody can begin sooner than in 3.1 s."


def test_a_weaker_model_answers_only_where_that_is_allowed() -> None:
    """The good one has a long queue: the weak one steps in, if the ladder's step is on, and it is told."""
    load = Load(candidates=(candidate("good", quality=0.8, wait_ms=60_000), candidate("weak", quality=0.4)))
    found = allocate(Demand(), load, Policy(), LAW)
    assert [each.model for each in found.members] == ["weak"]
    assert "smaller_model" in found.steps
    found = allocate(Demand(), load, Policy(steps=frozenset()), LAW)
    assert ([each.model for each in found.members], found.steps) == (["good"], ())


def test_weak_models_are_no_members() -> None:
    """More than ten points below the best: not admitted, unless somebody chose it by name."""
    load = Load(candidates=(candidate("ada", quality=0.7), candidate("bob", quality=0.55)))
    found = allocate(Demand(), load, Policy(size_wanted=2, samples=False), LAW)
    assert found.reason == "1 of 2: the next best model is 15 points below the best, and 10 are allowed."
    named = allocate(Demand(), load, Policy(members=("bob", "ada")), LAW)
    assert (named.size, named.binding) == (2, "wanted")


def test_the_chair_is_the_most_skilled_at_it() -> None:
    """Also one that is no member; but of a council that was put together by name its members, or the named one."""
    load = Load(
        candidates=(
            candidate("ada", quality=0.6),
            candidate("bob", quality=0.6, chair=0.6),
            candidate("cid", quality=0.3, chair=0.9),
        )
    )
    assert allocate(Demand(), load, Policy(size_wanted=2), LAW).chair == "cid"
    assert allocate(Demand(), load, Policy(members=("ada", "bob")), LAW).chair == "bob"
    assert allocate(Demand(), load, Policy(members=("ada", "bob"), chair="ada"), LAW).chair == "ada"


@pytest.mark.parametrize("kind", ["greeting", "rewrite", "translate"])
def test_some_questions_need_no_second_opinion(kind: str) -> None:
    """But who asks for one gets it."""
    assert allocate(Demand(kind=kind), idle(*SIX), Policy(), LAW).size == 1
    assert allocate(Demand(kind=kind), idle(*SIX), Policy(size_wanted=2), LAW).size == 2


def test_the_seeds_table_stops_at_five() -> None:
    """Its own total peaks there: 2.75 times one model, and 2.70 at six."""
    found = allocate(Demand(), idle(*SIX), Policy(size_wanted=6, samples=False), Contention(prior="seed"))
    assert (found.size, found.binding) == (5, "speed")
    assert "beyond 5 each takes more than it adds" in found.reason


def test_machines_do_not_hurt_each_other() -> None:
    """A member on another box leaves the streams of the first alone."""
    here = candidate("ada")
    load = Load(candidates=(here, candidate("bob", box="gpu1")), slowest_tokens_per_s=16.0)
    load = replace(load, busy_engines={"gpu0": frozenset({here.engine})})
    assert allocate(Demand(), load, Policy(size_wanted=2, samples=False), {"gpu0": LAW, "gpu1": LAW}).size == 2
    same = replace(load, candidates=(here, candidate("bob")))
    assert allocate(Demand(), same, Policy(size_wanted=2, samples=False), LAW).binding == "speed"


def test_under_load_answers_of_one_model_take_the_place_of_others() -> None:
    """They share the steps of their engine, which is nearly free (.96 at two)."""
    policy = Policy(size_wanted=2)
    calm = allocate(Demand(), idle("ada", "bob", slots=8, running=1), policy, LAW)
    full = allocate(Demand(), idle("ada", "bob", slots=8, running=5), policy, LAW)
    assert {each.model for each in calm.members} == {"ada", "bob"}
    assert [(each.model, each.sample) for each in full.members] == [("ada", 0), ("ada", 1)]


def test_what_the_box_could_carry_is_not_what_somebody_asked_for() -> None:
    """`room` asks for the most with a usual question, whatever this person wants or has left."""
    policy = Policy(size_wanted=1, samples_only=True, tokens_left=0, members=("nobody",))
    assert room(idle(*SIX), policy, LAW) == 6
    assert room(idle(*SIX, slots=1), replace(policy, size_max=9), LAW) == 6


def test_without_a_model_there_is_no_answer() -> None:
    """It is an error, not an empty council."""
    with pytest.raises(ValueError, match="No model"):
        allocate(Demand(), Load(candidates=()), Policy(), LAW)
    with pytest.raises(ValueError, match="No model"):
        allocate(Demand(), idle("ada"), Policy(members=("eve",)), LAW)
