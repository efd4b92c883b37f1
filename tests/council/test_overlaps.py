"""What councils teach about contention."""

import pytest

from server.council.events import Member, Usage
from server.council.overlaps import Overlaps, Where

PLACES = {"a": Where("one", "gpu", 1000.0), "b": Where("two", "gpu", 1000.0), "c": Where("three", "other", 1000.0)}


def _wrote(overlaps: Overlaps, label: str, model: str, began_ms: int, ended_ms: int, tokens: int = 101) -> None:
    """One call, from its first token to its end."""
    usage = Usage(completion_tokens=tokens)
    for state, at_ms in (("answering", began_ms), ("done", ended_ms)):
        member = Member(label=label, model=model, role="member", state=state, usage=usage)  # type: ignore[arg-type]
        overlaps.see(member, at_ms)


def test_two_that_write_beside_each_other_are_two_engines() -> None:
    """100 tokens in 200 ms, where one takes a millisecond alone: half is left."""
    overlaps = Overlaps()
    _wrote(overlaps, "A", "a", 0, 200)
    _wrote(overlaps, "B", "b", 0, 200)
    assert overlaps.observations(PLACES, {}) == [("gpu", 2, 0.5), ("gpu", 2, 0.5)]


def test_who_writes_alone_says_what_one_engine_keeps() -> None:
    """Another box is nobody beside it."""
    overlaps = Overlaps()
    _wrote(overlaps, "A", "a", 0, 100)
    _wrote(overlaps, "C", "c", 0, 100)
    assert overlaps.observations(PLACES, {}) == [("gpu", 1, 1.0), ("other", 1, 1.0)]


def test_engines_that_others_keep_busy_count() -> None:
    """They were answering somebody when the council began."""
    overlaps = Overlaps()
    _wrote(overlaps, "A", "a", 0, 250)
    ((box, engines, left),) = overlaps.observations(PLACES, {"gpu": frozenset({"two"})})
    assert (box, engines) == ("gpu", 2)
    assert left == pytest.approx(0.4)
    assert overlaps.observations(PLACES, {"gpu": frozenset({"one"})}) == []


@pytest.mark.parametrize("ended_ms", [70, 50, 30])
def test_half_an_overlap_teaches_nothing_of_the_longer_one(ended_ms: int) -> None:
    """Neither one engine nor two would be true."""
    overlaps = Overlaps()
    _wrote(overlaps, "A", "a", 0, 100)
    _wrote(overlaps, "B", "b", 0, ended_ms)
    assert [size for _, size, _ in overlaps.observations(PLACES, {})] == [2]


def test_short_answers_samples_and_unknown_speeds_teach_nothing() -> None:
    """Too few tokens, two calls in one engine's batch, a model that was never measured."""
    overlaps = Overlaps()
    _wrote(overlaps, "A", "a", 0, 100, tokens=8)
    assert overlaps.observations(PLACES, {}) == []
    _wrote(overlaps, "B", "b", 0, 100)
    _wrote(overlaps, "D", "b", 0, 100)
    assert overlaps.observations(PLACES, {}) == []
    unknown = Overlaps()
    _wrote(unknown, "A", "a", 0, 100)
    assert unknown.observations({"a": Where("one", "gpu", 0.0)}, {}) == []
    assert unknown.observations({}, {}) == []
