"""What people are told about their turn, against rules and against what happens."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from quotas.cost import Cost
from quotas.forecast import Experience, Standing, forecast
from quotas.view import EngineView, FlowView, Queued, Running

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
    assert standings.keys() == {queued.id for queued in view.queued}
    order = sorted(standings.values(), key=lambda standing: standing.ahead)
    assert [standing.ahead for standing in order] == list(range(len(order)))
    waits = [standing.wait_ms for standing in order]
    if view.token_us and view.running:
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
    ends = (Running("x", "hog", "m", 100, 100),)
    view = engine(running=ends, queued=(short, Queued("q1", "ann", "m", 10, 900, is_ranked=True)))
    assert forecast(view)["q1"].wait_ms == 120 + 200
    chatty = engine(running=ends, queued=queue_of("bob", "bob"), flows=(FlowView("bob", 0, 100, 700),))
    assert forecast(chatty)["q1"].wait_ms == 120 + 7_000


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


def test_where_nothing_runs_only_the_place_is_told() -> None:
    """Nothing will end, so nobody knows: the engine is gone, or the flow is at a limit of its own."""
    assert forecast(engine(slots=0, queued=queue_of("ann"))) == {"q0": Standing(0, None)}


@given(st.lists(st.integers(1_000, 600_000), min_size=40, max_size=60), st.sampled_from([0.5, 1.0, 3.0, 8.0]))
def test_experience_corrects_a_steady_error(estimates: list[int], factor: float) -> None:
    """Where estimates are always wrong by the same factor, the corrected ones come within a third of the truth."""
    experience = Experience()
    for estimate_ms in estimates:
        experience.learn("ann", estimate_ms, int(estimate_ms * factor))
    corrected = experience.corrected("ann", Standing(3, 100_000))
    assert corrected.ahead == 3
    assert corrected.wait_ms is not None
    assert 0.66 <= corrected.wait_ms / (100_000 * factor) <= 1.5
    assert experience.corrected("bob", Standing(3, 100_000)) == Standing(3, 100_000)
    assert experience.corrected("ann", Standing(3, None)) == Standing(3, None)


@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)), max_size=30), st.integers(0, 1 << 40))
def test_no_experience_makes_a_wait_negative(learned: list[tuple[int, int]], wait_ms: int) -> None:
    """Whatever was learned, an estimate is a time from now."""
    experience = Experience()
    for estimated_ms, waited_ms in learned:
        experience.learn("ann", estimated_ms, waited_ms)
    corrected = experience.corrected("ann", Standing(0, wait_ms))
    assert corrected.wait_ms is not None
    assert corrected.wait_ms >= 0
