"""What people are told about their turn, against rules and against what happens."""

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from quotas.cost import Cost
from quotas.forecast import Standing, forecast
from quotas.policy import Limits
from quotas.view import EngineView, FlowView, Queued, Running
from tests.quotas.yard import Yard

FLOWS = ("ann", "bob", "cid")
amounts = st.integers(0, 1 << 40)
flows = st.sampled_from(FLOWS)
rankings = st.dictionaries(flows, st.booleans())


@st.composite
def views(draw: st.DrawFn) -> EngineView:
    """Anything that Redis may tell of an engine."""
    ranked = draw(rankings)
    queued = draw(st.lists(st.tuples(flows, amounts, st.integers(-1, 5_000)), max_size=12))
    running = draw(st.lists(st.tuples(flows, st.integers(0, 9_000), st.integers(-1, 5_000)), max_size=5))
    known = draw(st.lists(flows, unique=True))
    return EngineView(
        name="a",
        slots=draw(st.integers(0, 6)),
        kept_slots=draw(st.sampled_from([0, 0, 1, 2])),
        waiting=len(queued) + draw(st.integers(0, 5)),
        running_count=len(running) + draw(st.integers(0, 5)),
        token_us=draw(st.sampled_from([0, 1, 30_000])),
        first_ms=draw(st.sampled_from([0, 800])),
        answer_tokens=draw(st.integers(0, 4_000)),
        running=tuple(Running(f"x{at}", flow, "m", *each) for at, (flow, *each) in enumerate(running)),
        flows=tuple(
            FlowView(flow, draw(st.integers(-(1 << 40), 1 << 40)), draw(st.integers(0, 400)), draw(st.integers(0, 900)))
            for flow in known
        ),
        queued=tuple(
            Queued(f"q{at:02}", flow, "m", cost, granted, ranked.get(flow, True))
            for at, (flow, cost, granted) in enumerate(queued)
        ),
    )


def engine(**changes: object) -> EngineView:
    """One slot, an answer of a hundred tokens takes a second, and nobody is there."""
    idle = EngineView(
        name="a",
        slots=1,
        kept_slots=0,
        waiting=0,
        running_count=0,
        token_us=10_000,
        first_ms=0,
        answer_tokens=100,
        running=(),
        flows=(),
        queued=(),
    )
    return replace(idle, **changes)  # type: ignore[arg-type]


def queue_of(*users: str) -> tuple[Queued, ...]:
    """Requests of these, in order of arrival."""
    return tuple(Queued(f"q{at}", user, "m", 10, 1_000, is_ranked=True) for at, user in enumerate(users))


@given(views())
def test_everybody_has_a_place(view: EngineView) -> None:
    """Places are 0, 1, 2 and so on, waits never fall along them, and one's own come in order of arrival."""
    standings = forecast(view)
    free = view.slots - view.kept_slots - view.running_count
    if free <= 0 and len(view.running) <= -free:
        assert standings == {}
        return
    assert standings.keys() == {queued.id for queued in view.queued}
    order = sorted(standings.values(), key=lambda standing: standing.ahead)
    assert [standing.ahead for standing in order] == list(range(len(order)))
    waits = [standing.wait_ms for standing in order]
    if view.token_us:
        assert waits == sorted(wait for wait in waits if wait is not None)
        assert all(wait is not None and wait >= 0 for wait in waits)
    else:
        assert set(waits) <= {None}
    for flow in FLOWS:
        own = [standings[queued.id].ahead for queued in view.queued if queued.flow == flow]
        assert own == sorted(own)


@given(views())
def test_who_may_run_goes_before_who_may_not(view: EngineView) -> None:
    """Flows that are at their own limit come last."""
    standings = forecast(view)
    free = [standings[queued.id].ahead for queued in view.queued if queued.is_ranked and queued.id in standings]
    held = [standings[queued.id].ahead for queued in view.queued if not queued.is_ranked and queued.id in standings]
    assert max(free, default=-1) < min(held, default=len(standings))


@given(views(), st.integers(1, 4))
def test_more_slots_are_never_a_longer_wait(view: EngineView, more: int) -> None:
    """The first in the queue waits no longer where more is free."""
    first = min((each.wait_ms for each in forecast(view).values() if each.wait_ms is not None), default=None)
    wider = forecast(replace(view, slots=view.slots + more))
    if first is not None:
        assert min(each.wait_ms for each in wider.values() if each.wait_ms is not None) <= first


def test_waits_are_told_from_what_answers_took() -> None:
    """The one that runs has 60 tokens to go, each next one takes its second and the time to its first token."""
    view = engine(
        running_count=1,
        first_ms=500,
        running=(Running("x", "hog", "m", 40, 1_000),),
        queued=queue_of("ann", "ann", "ann"),
        flows=(FlowView("ann", 0, 100, 0), FlowView("hog", 0, 100, 0)),
    )
    assert forecast(view) == {
        "q0": Standing(0, 600),
        "q1": Standing(1, 600 + 1_500),
        "q2": Standing(2, 600 + 3_000),
    }


def test_an_answer_longer_than_usual_goes_on_for_a_while() -> None:
    """It is not expected to end this moment, for as long as it runs."""
    view = engine(running_count=1, running=(Running("x", "hog", "m", 900, 4_000),), queued=queue_of("ann"))
    assert forecast(view)["q0"].wait_ms == 120


def test_a_short_answer_is_expected_where_one_was_asked_for() -> None:
    """No answer is longer than what was granted, and a flow's own habit counts before everybody's."""
    short = Queued("q0", "ann", "m", 10, 20, is_ranked=True)
    view = engine(queued=(short, Queued("q1", "ann", "m", 10, 900, is_ranked=True)))
    assert forecast(view)["q1"].wait_ms == 200
    chatty = engine(queued=queue_of("bob", "bob"), flows=(FlowView("bob", 0, 100, 700),))
    assert forecast(chatty)["q1"].wait_ms == 7_000


def test_turns_follow_counters_and_weights() -> None:
    """The poorest first; of two who have many waiting one with twice the weight has two turns for one."""
    users = ("ann", "ann", "ann", "bob", "bob", "bob", "bob")
    view = engine(queued=queue_of(*users), flows=(FlowView("ann", 0, 100, 0), FlowView("bob", 1, 200, 0)))
    standings = forecast(view)
    order = sorted(standings, key=lambda name: standings[name].ahead)
    assert [users[int(name[1:])] for name in order] == ["ann", "bob", "bob", "ann", "bob", "bob", "ann"]


def test_without_experience_only_the_place_is_told() -> None:
    """Nothing was answered yet: nobody knows how long it takes."""
    assert forecast(engine(token_us=0, queued=queue_of("ann"))) == {"q0": Standing(0, None)}


def test_a_dear_model_counts_for_more() -> None:
    """What tokens cost decides how soon a flow is overtaken."""
    view = engine(
        queued=queue_of("ann", "ann", "bob"), flows=(FlowView("ann", 0, 100, 0), FlowView("bob", 5_000, 100, 0))
    )
    assert forecast(view, Cost(1, 2))["q2"].ahead == 1
    lazy = replace(view, flows=(FlowView("ann", 0, 100, 0), FlowView("bob", 10**7, 100, 0)))
    assert forecast(lazy, Cost(1, 2))["q2"].ahead == 2
    assert forecast(lazy, Cost(1, 200))["q2"].ahead == 1


def test_a_slot_that_is_kept_is_not_waited_for() -> None:
    """Of two answers the first that ends makes up for the slot that is kept, the second gives the turn."""
    running = (Running("x", "hog", "m", 90, 1_000), Running("y", "hog", "m", 20, 1_000))
    view = engine(slots=2, running_count=2, running=running, queued=queue_of("hog"))
    assert forecast(view)["q0"].wait_ms == 120
    assert forecast(replace(view, kept_slots=1))["q0"].wait_ms == 800
    assert forecast(replace(view, slots=3, kept_slots=1))["q0"].wait_ms == 120


def test_an_engine_that_is_gone_tells_nothing() -> None:
    """No slots, and nothing that will end."""
    assert forecast(engine(slots=0, queued=queue_of("ann"))) == {}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(flows, st.integers(1, 400)), min_size=2, max_size=12),
    st.tuples(*(st.sampled_from([50, 100, 200]) for _ in FLOWS)),
)
async def test_where_all_goes_as_usual_the_order_comes_true(
    redis: Redis, requests: list[tuple[str, int]], weights: tuple[int, ...]
) -> None:
    """With one slot and answers of the usual length, people are served in the order that was told."""
    yard = Yard(redis)
    await yard.window(slots=1)
    for flow, weight in zip(FLOWS, weights, strict=True):
        name = await yard.ask(flow, limits=Limits(weight=weight))
        await yard.stream(name, 40)
        await yard.end(name)
    limits = {flow: Limits(weight=weight) for flow, weight in zip(FLOWS, weights, strict=True)}
    for flow, prompt in requests:
        await yard.ask(flow, prompt=prompt, answer=40, limits=limits[flow])
    (view,) = (await yard.ledger.view()).engines
    told = forecast(view)
    order = sorted(told, key=lambda name: told[name].ahead)
    for name in order:
        (running,) = await yard.running()
        await yard.stream(running, 40)
        await yard.end(running)
        assert await yard.running() == [name]


async def test_a_view_names_everything(redis: Redis) -> None:
    """Engines, what runs, who waits and may not run, and what was learned."""
    yard = Yard(redis)
    await yard.window("a", slots=2)
    await yard.window("b", slots=1)
    done = await yard.ask("ann", prompt=10, answer=50)
    await yard.stream(done, 50)
    await yard.end(done, queue_ms=100, first_token_ms=300, total_ms=1_300)
    one = Limits(in_flight_max=1, weight=300)
    held = [await yard.ask("ann", answer=7, limits=one) for _ in range(2)]
    busy = [await yard.ask("bob", prompt=5) for _ in range(2)]
    await yard.stream(held[0], 4)
    first, second = (await yard.ledger.view()).engines
    assert (first.name, first.slots, first.waiting, first.running_count) == ("a", 2, 2, 2)
    assert (first.token_us, first.first_ms, first.answer_tokens) == (20_000, 200, 50)
    assert {(each.id, each.flow, each.output_tokens, each.granted) for each in first.running} == {
        (held[0], "ann", 4, 7),
        (busy[0], "bob", 0, 10),
    }
    assert [(each.id, each.flow, each.is_ranked) for each in first.queued] == [
        (held[1], "ann", False),
        (busy[1], "bob", True),
    ]
    assert {(flow.id, flow.weight) for flow in first.flows} == {("ann", 300), ("bob", 100)}
    assert (second.name, second.waiting, second.running_count, second.queued) == ("b", 0, 0, ())
