"""Boxes under any load, and the same a little worse."""

import math

from hypothesis import strategies as st
from msgspec.structs import replace

from server.allocator.contention import Contention
from server.allocator.terms import Candidate, Demand, Load, Policy

BOXES = ("gpu0", "gpu1")
ENGINES = ("e0", "e1", "e2", "e3", "e4")
MODELS = ("ada", "bob", "cid", "dot", "eve")
GIB = 1 << 30

qualities = st.sampled_from([0.5, 0.5, 0.52, 0.55, 0.58, 0.58, 0.45, 0.9])


def candidate(model: str, **changes: object) -> Candidate:
    """A 7-8B model on an idle engine of its own with four slots: 100 tokens a second, prompts at 2500."""
    usual = Candidate(model=model, engine=f"engine-{model}", box="gpu0", prefill_us=400.0, decode_us=10_000.0, slots=4)
    return replace(usual, **changes)


def idle(*models: str, **changes: object) -> Load:
    """Nobody is there but these."""
    return Load(candidates=tuple(candidate(model, **changes) for model in models))


@st.composite
def candidates(draw: st.DrawFn) -> tuple[Candidate, ...]:
    """One to five; an engine may have several models, and a model several engines."""
    places = draw(
        st.lists(
            st.tuples(st.sampled_from(MODELS), st.sampled_from(ENGINES)),
            min_size=draw(st.sampled_from([1, 3, 5])),
            max_size=5,
            unique=True,
        )
    )
    return tuple(
        Candidate(
            model=model,
            engine=engine,
            box=BOXES[ENGINES.index(engine) % 2],
            quality=draw(qualities),
            chair=draw(qualities),
            prefill_us=draw(st.sampled_from([100.0, 0.0, 400.0, 3_000.0])),
            decode_us=draw(st.sampled_from([5_000.0, 0.0, 10_000.0, 25_000.0, 70_000.0])),
            slots=draw(st.sampled_from([4, 8, 2, 1])),
            running=draw(st.sampled_from([0, 0, 0, 1, 3])),
            waiting=draw(st.sampled_from([0, 0, 0, 1])),
            wait_ms=draw(st.sampled_from([0, 0, 0, 500, 5_000])),
            is_resident=(is_resident := draw(st.sampled_from([True, True, True, False]))),
            load_ms=0 if is_resident else 1_000,
            memory_bytes=0 if is_resident else draw(st.integers(1, 4)) * GIB,
            context_tokens_max=draw(st.sampled_from([None, None, 4_000, 1_000])),
        )
        for model, engine in places
    )


@st.composite
def _any_loads(draw: st.DrawFn) -> Load:
    """Anything from idle to full."""
    found = draw(candidates())
    return Load(
        candidates=found,
        free_bytes={box: draw(st.sampled_from([16 * GIB, 4 * GIB, 0, None])) for box in BOXES},
        busy_engines={box: draw(st.frozensets(st.sampled_from([*ENGINES, "x", "y"]), max_size=2)) for box in BOXES},
        slowest_tokens_per_s=draw(st.sampled_from([None, 100.0, 60.0, 30.0, 20.0, 5.0])),
        waiting_others=draw(st.sampled_from([0, 0, 0, 1, 4])),
        expected_requests=draw(st.sampled_from([0.0, 0.0, 0.3, 1.0, 2.5])),
    )


@st.composite
def _fair_loads(draw: st.DrawFn) -> Load:
    """Nothing but what makes boxes different: a council has room, and little makes it smaller."""
    models = draw(st.integers(2, 5))
    boxes = draw(st.sampled_from([("gpu0",), BOXES]))
    cold = draw(st.sampled_from([0, 0, 1, 2]))
    slots = draw(st.integers(1, 6))
    found = tuple(
        candidate(
            model,
            engine=ENGINES[at],
            box=boxes[at % len(boxes)],
            quality=draw(st.sampled_from([0.5, 0.52, 0.55])),
            chair=draw(qualities),
            decode_us=draw(st.sampled_from([4_000.0, 10_000.0, 20_000.0])),
            slots=slots,
            is_resident=at >= cold,
            memory_bytes=0 if at >= cold else 3 * GIB,
            load_ms=0 if at >= cold else 500,
        )
        for at, model in enumerate(MODELS[:models])
    )
    busy = draw(st.sampled_from([frozenset[str](), frozenset({"x"}), frozenset({"e0", "x"})]))
    return Load(
        candidates=found,
        free_bytes=dict.fromkeys(BOXES, 8 * GIB),
        busy_engines={"gpu0": busy, "gpu1": frozenset()},
        slowest_tokens_per_s=draw(st.sampled_from([20.0, 30.0, 50.0, 80.0])) if busy else None,
    )


def loads() -> st.SearchStrategy[Load]:
    """Boxes with room, and any others."""
    return _fair_loads() | _fair_loads() | _any_loads()


contentions = st.one_of(
    st.builds(Contention, prior=st.sampled_from(["seed", "saturation"]), total=st.sampled_from([0.7, 1.0, 1.6, 2.5])),
    st.lists(st.tuples(st.integers(2, 6), st.floats(0.05, 1.2)), max_size=12).map(
        lambda seen: learned(Contention(), seen)
    ),
)

_any_policies = st.builds(
    Policy,
    size_max=st.integers(1, 7),
    size_wanted=st.none() | st.integers(1, 8),
    samples_only=st.booleans(),
    samples=st.booleans(),
    members=st.sampled_from([(), (), ("ada", "bob", "cid"), ("dot", "eve"), ("bob",)]),
    chair=st.none() | st.sampled_from(MODELS),
    first_token_ms_max=st.sampled_from([20_000, 2_000, 500]),
    tokens_left=st.sampled_from([None, 6_000, 2_000, 0]),
    steps=st.sampled_from([Policy().steps, frozenset[str]()]),
)
_fair_policies = st.builds(
    Policy,
    size_max=st.sampled_from([6, 6, 4, 2]),
    size_wanted=st.sampled_from([None, 6, 5, 3]),
    samples_only=st.sampled_from([False, False, True]),
    samples=st.booleans(),
    members=st.sampled_from([(), (), MODELS]),
)
policies = _fair_policies | _fair_policies | _any_policies

demands = st.builds(
    Demand,
    kind=st.sampled_from(["open", "open", "code", "vote", "rewrite"]),
    prompt_tokens=st.sampled_from([100, 512, 512, 2_000, 5_000]),
    answer_tokens=st.sampled_from([400, 400, 1, 1_000]),
)


@st.composite
def worse(draw: st.DrawFn, demand: Demand, load: Load) -> tuple[str, Demand, Load]:
    """The same with one input worse; which, in words."""
    at = draw(st.integers(0, len(load.candidates) - 1))
    each = load.candidates[at]
    box = draw(st.sampled_from(BOXES))
    busy = {**load.busy_engines, box: load.busy_engines[box] | {draw(st.sampled_from([*ENGINES, "x", "y", "z"]))}}
    free_bytes = load.free_bytes[box]
    less_bytes = None if not free_bytes else draw(st.integers(0, free_bytes))
    slower = (load.slowest_tokens_per_s or 200.0) * draw(st.floats(0.05, 1.0))
    known = replace(each, prefill_us=each.prefill_us or 400.0, decode_us=each.decode_us or 10_000.0)
    factor = draw(st.floats(1.0, 20.0))
    worsened: dict[str, Candidate] = {
        "more running": replace(each, running=each.running + draw(st.integers(1, 4))),
        "more waiting": replace(each, waiting=each.waiting + draw(st.integers(1, 4))),
        "longer wait": replace(each, wait_ms=each.wait_ms + draw(st.integers(1, 9_000))),
        "fewer slots": replace(each, slots=max(0, each.slots - draw(st.integers(1, 4)))),
        "slower prompts": replace(known, prefill_us=known.prefill_us * factor),
        "slower answers": replace(known, decode_us=known.decode_us * factor),
        "not in memory": replace(
            each, is_resident=False, load_ms=each.load_ms + 500, memory_bytes=each.memory_bytes + GIB
        ),
    }
    others: dict[str, tuple[Demand, Load]] = {
        "more wait elsewhere": (demand, replace(load, waiting_others=load.waiting_others + draw(st.integers(1, 3)))),
        "more expected": (demand, replace(load, expected_requests=load.expected_requests + draw(st.floats(0.0, 4.0)))),
        "less memory": (demand, replace(load, free_bytes={**load.free_bytes, box: less_bytes})),
        "more busy engines": (demand, replace(load, busy_engines=busy)),
        "slower streams": (demand, replace(load, slowest_tokens_per_s=slower)),
        "longer prompt": (replace(demand, prompt_tokens=demand.prompt_tokens + draw(st.integers(1, 9_000))), load),
    }
    what = draw(st.sampled_from([*worsened, *others]))
    if what in others:
        return what, *others[what]
    changed = (*load.candidates[:at], worsened[what], *load.candidates[at + 1 :])
    return what, demand, replace(load, candidates=changed)


def learned(prior: Contention, seen: list[tuple[int, float]]) -> Contention:
    """After these measurements: with so many busy engines, one kept this part of its own rate."""
    sums: dict[int, tuple[float, int]] = {}
    for k, left in seen:
        log_sum, count = sums.get(k, (0.0, 0))
        sums[k] = log_sum + math.log(left), count + 1
    return prior.with_sums(sums)
