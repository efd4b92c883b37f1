"""What is tried before anybody is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.allocator.ladder import LADDER, LOCAL_STEPS, Possible, descend, switched_on

situations = st.builds(
    Possible,
    size_wanted=st.integers(1, 6),
    size_possible=st.integers(0, 6),
    model=st.just("large"),
    model_smaller=st.none() | st.just("small"),
    answer_tokens=st.integers(0, 500),
    answer_tokens_possible=st.integers(0, 500),
    wait_ms=st.none() | st.integers(0, 100_000),
    cloud=st.none() | st.just("elsewhere"),
    is_own_limit=st.booleans(),
    retry_after_ms=st.integers(0, 100_000),
)
choices = st.frozensets(st.sampled_from(LADDER))


@given(situations, choices)
def test_nobody_is_refused_before_everything_was_tried(possible: Possible, steps: frozenset[str]) -> None:
    """Every step that is switched on was looked at, and none of those that end well could be taken."""
    found = descend(possible, steps)
    if found.outcome != "refuse":
        return
    tried = {rung.step for rung in found.tried}
    needless = set()
    if possible.size_possible >= possible.size_wanted:
        needless = {"smaller_council", "smaller_model"}
    elif possible.size_possible >= 1 and "smaller_council" in steps:
        needless = {"smaller_model"}
    assert steps - needless <= tried | {"refuse"}
    assert not ("queue" in steps and possible.wait_ms is not None)
    assert not ("cloud" in steps and possible.cloud)
    assert found.status == (429 if possible.is_own_limit else 503)
    assert (found.retry_after_ms or 0) >= 1_000


@given(situations, choices)
def test_steps_are_taken_in_order_and_told(possible: Possible, steps: frozenset[str]) -> None:
    """None that is switched off, none twice, each with a sentence; what was taken was tried."""
    found = descend(possible, steps)
    tried = [rung.step for rung in found.tried]
    assert tried == [step for step in LADDER if step in tried]
    assert set(tried) <= steps | {"refuse"}
    assert not set(found.off) & steps
    assert set(found.taken) <= set(found.tried)
    assert all(rung.sentence.endswith(".") for rung in found.tried)
    last = {"queue": "queue", "cloud": "cloud", "refuse": "refuse"}.get(found.outcome)
    assert last is None or found.taken[-1].step == last


@given(situations, choices)
def test_what_is_answered_can_be(possible: Possible, steps: frozenset[str]) -> None:
    """With the members, the model and the length that are possible; and never more than was wanted."""
    found = descend(possible, steps)
    assert 1 <= found.size <= possible.size_wanted
    assert found.answer_tokens <= possible.answer_tokens
    if found.outcome == "answer":
        assert found.answer_tokens <= possible.answer_tokens_possible
        assert found.size <= possible.size_possible or (found.size == 1 and found.model == possible.model_smaller)
    if found.size < possible.size_wanted:
        assert "smaller_council" in {rung.step for rung in found.taken}


def test_nothing_is_changed_where_nothing_hinders() -> None:
    """Then no step is even looked at."""
    found = descend(Possible(size_wanted=3, size_possible=3, model="m", answer_tokens=9, answer_tokens_possible=9))
    assert (found.outcome, found.tried, found.off) == ("answer", (), ())


def test_the_whole_way_down() -> None:
    """A council of five on a full box: smaller, no other model, no shorter answer, no queue, no cloud, 503."""
    found = descend(Possible(size_wanted=5, model="m", answer_tokens=400, retry_after_ms=2_500), frozenset(LADDER))
    assert [(rung.step, rung.sentence) for rung in found.tried] == [
        ("smaller_council", "1 of 5 members answer."),
        ("smaller_model", "No other model can answer now in the place of m."),
        ("shorter_answer", "No answer is short enough."),
        ("queue", "The queue is full, or too long to wait in."),
        ("cloud", "Nobody outside of this box may answer this."),
        ("refuse", "The box is full. Ask again in 3 s."),
    ]
    assert (found.outcome, found.status, found.retry_after_ms) == ("refuse", 503, 2_500)


@pytest.mark.parametrize(
    ("changes", "outcome", "steps"),
    [
        ({"size_possible": 2}, "answer", ["smaller_council"]),
        ({"model_smaller": "s"}, "answer", ["smaller_council", "smaller_model"]),
        ({"size_possible": 5, "answer_tokens_possible": 100}, "answer", ["shorter_answer"]),
        ({"size_possible": 1, "answer_tokens_possible": 100}, "answer", ["smaller_council", "shorter_answer"]),
        ({"wait_ms": 4_100}, "queue", ["smaller_council", "queue"]),
        ({"wait_ms": 0}, "queue", ["smaller_council", "queue"]),
        ({"cloud": "far"}, "refuse", ["smaller_council", "refuse"]),
    ],
)
def test_each_step_ends_the_way_where_it_helps(changes: dict[str, object], outcome: str, steps: list[str]) -> None:
    """The cloud is not among those that are on by themselves."""
    known: dict[str, object] = {"size_wanted": 5, "model": "m", "answer_tokens": 400, "answer_tokens_possible": 400}
    found = descend(Possible(**{**known, **changes}))  # type: ignore[arg-type]
    assert (found.outcome, [rung.step for rung in found.taken]) == (outcome, steps)


def test_a_request_may_only_switch_off() -> None:
    """What its person has not on, it cannot switch on."""
    assert switched_on(LOCAL_STEPS, frozenset({"queue", "cloud"})) == {"queue"}
    assert switched_on(LOCAL_STEPS) == LOCAL_STEPS
    off = descend(Possible(size_wanted=3, size_possible=1, model="m", wait_ms=900), frozenset({"queue"}))
    assert (off.outcome, off.size) == ("queue", 3)
    assert off.off == ("smaller_council", "smaller_model", "shorter_answer")


def test_ones_own_limit_is_told_apart() -> None:
    """From a full box: 429, not 503."""
    found = descend(Possible(model="m", is_own_limit=True, retry_after_ms=60_000), frozenset())
    assert (found.status, found.taken[-1].sentence) == (429, "Your own limit is reached. Ask again in 60 s.")
