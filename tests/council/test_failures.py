"""Whatever fails, in whatever order: one conclusion or one error that names everybody, and events in a legal order."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from server.council.calls import CouncilFailed
from server.council.events import Verdict
from server.council.strategies import BUILT_IN
from server.council.table import Conclusion
from server.errors import EngineFailed
from tests.council.scripts import Council, Script, check_order, pass_rounds, seats

TEXTS = st.sampled_from(
    [
        "Answer: 42",
        "Answer: 41",
        "I think so. Answer: B",
        "Bread rises because yeast eats sugar and gives off gas that the dough holds.",
        "The moon pulls the water, and so does the sun, twice a month together.",
        "RANKING: 1, 2",
        "RANKING: 2, 1, 3",
        "BEST: 1",
        "BEST: 9",
        "",
        "  ",
    ]
)
ERRORS = st.sampled_from(
    [
        None,
        None,
        None,
        EngineFailed("The engine has died."),
        EngineFailed("Somebody needed the slot.", code="revoked"),
        RuntimeError("what"),
    ]
)
SCRIPTS = st.builds(
    Script,
    TEXTS,
    wait_ms=st.sampled_from([0, 1, 50, 5_000, 25_000, 90_000]),
    word_ms=st.sampled_from([0, 7, 900]),
    error=ERRORS,
    hangs=st.sampled_from([False, False, False, True]),
    end=st.sampled_from(["stop", "length"]),
    thought=st.sampled_from(["", "Hm."]),
)
ROLES = ["rank", "judge", "debate", "chair"]
CASTS = st.dictionaries(
    st.one_of(
        st.sampled_from("ABCDEF"), st.sampled_from(ROLES), st.tuples(st.sampled_from("ABC"), st.sampled_from(ROLES))
    ),
    SCRIPTS,
)
MODELS = st.lists(st.sampled_from(["m-one", "m-two", "m-three", "m-four"]), min_size=1, max_size=5)


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """What breaks in an unforeseen way is logged with its trace, hundreds of times here."""
    with capture_logs():
        yield


def _council(scripts: dict[Any, Script], models: list[str], spare: list[str], deadline_ms: int | None) -> Council:
    return Council(scripts, models, more=seats(*spare), deadline_ms=deadline_ms, rounds=2)


async def _conclusion(council: Council, name: str) -> Conclusion | None:
    """What it came to; None if it failed, and then as it should."""
    task = asyncio.ensure_future(council.table.run(BUILT_IN[name]))
    await council.until(task)
    assert council.cast.open_now == 0
    check_order(council.events)
    failed = task.exception()
    if failed is None:
        return task.result()
    assert isinstance(failed, CouncilFailed)
    assert not [event for event in council.events if isinstance(event, Verdict)]
    assert {answer.seat.label for answer in failed.answers} == {seat.label for seat in council.table.seats}
    assert all(answer.seat.model in failed.message for answer in failed.answers)
    return None


@pytest.mark.parametrize("name", BUILT_IN)
@settings(max_examples=40, deadline=None)
@given(scripts=CASTS, models=MODELS, spare=MODELS, deadline_ms=st.sampled_from([None, 30, 10_000]))
async def test_there_is_one_conclusion_or_one_error(
    name: str, scripts: dict[Any, Script], models: list[str], spare: list[str], deadline_ms: int | None
) -> None:
    """Every seat is accounted for, nothing is left open, and the answer is what was told."""
    council = _council(scripts, models, spare, deadline_ms)
    conclusion = await _conclusion(council, name)
    if conclusion is None:
        return
    assert conclusion.text.strip()
    assert conclusion.text == council.content
    assert conclusion.verdict == council.verdict
    assert conclusion.verdict.reason.endswith(".")
    reports = council.table.reports
    assert {report.label for report in reports if report.role == "member"} == {
        seat.label for seat in council.table.seats
    }
    opinions = [label for opinion in conclusion.verdict.opinions for label in opinion.labels]
    done = {report.label for report in reports if report.role == "member" and report.state == "done"}
    assert len(opinions) == len(set(opinions))
    assert set(opinions) == done
    assert conclusion.verdict.winner in {None, *done}
    assert 0 < conclusion.verdict.agreement <= 1


@pytest.mark.parametrize("name", BUILT_IN)
@settings(max_examples=25, deadline=None)
@given(scripts=CASTS, models=MODELS, leaves_ms=st.sampled_from([0, 40, 120, 7_000, 30_000]))
async def test_an_asker_may_leave_at_any_time(
    name: str, scripts: dict[Any, Script], models: list[str], leaves_ms: int
) -> None:
    """Nothing is left open, no task stays, and what was told until then is in order."""
    council = _council(scripts, models, [], None)
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(council.table.run(BUILT_IN[name]))
    await council.until(task, ms=leaves_ms)
    task.cancel()
    await pass_rounds()
    assert task.done()
    assert council.cast.open_now == 0
    assert asyncio.all_tasks() == before
    assert not task.cancelled() or {report.state for report in council.table.reports}.isdisjoint(
        {"waiting", "answering"}
    )
    if not task.cancelled():
        assert task.exception() is None or isinstance(task.exception(), CouncilFailed)
