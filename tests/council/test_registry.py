"""Which strategies there are, which is taken where nobody chose one, plugins, and how ranks are counted."""

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from server.council.strategies import BUILT_IN, load_strategies, suited
from server.council.strategies.karpathy import borda
from server.council.table import Table
from tests.council.scripts import Council, Script

LABELS = "ABCDE"


@given(st.dictionaries(st.sampled_from(LABELS), st.permutations(LABELS)))
def test_nobodys_own_vote_counts(rankings: dict[str, list[str]]) -> None:
    """Where a voter puts itself changes nothing; points are between none and one less than its rivals."""
    points = borda(rankings, LABELS)
    first = {voter: [voter, *(label for label in ranking if label != voter)] for voter, ranking in rankings.items()}
    assert borda(first, LABELS) == points
    assert all(0 <= each <= len(LABELS) - 2 for each in points.values())


def test_borda_goes_by_ranks() -> None:
    """Three voters of three, each over the other two."""
    assert borda({"A": "BC", "B": "CA", "C": "BA"}, "ABC") == {"A": 0, "B": 1, "C": 0.5}


@pytest.mark.parametrize(
    ("kind", "size", "samples_only", "name"),
    [
        ("open", 1, False, "solo"),
        ("vote", 1, True, "solo"),
        ("vote", 3, True, "self-k"),
        ("vote", 2, False, "vote"),
        ("open", 2, False, "duo"),
        ("chat", 5, False, "council-k"),
    ],
)
def test_there_is_a_strategy_for_every_question(kind: str, size: int, samples_only: bool, name: str) -> None:
    """By how many there is room for, and whether it can be counted."""
    assert suited(kind, size, samples_only=samples_only) == name
    assert name in BUILT_IN


async def test_the_pages_example_is_a_strategy() -> None:
    """Word for word."""
    page = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    there: dict[str, Any] = {}
    exec(code, there)  # noqa: S102 (our own page)
    council = Council({label: Script(f"An essay, the {label}th of its kind, on {label * 9}.") for label in "ABC"})
    await council.play(there["trio"])
    assert council.cast.roles("member") == ["A", "B", "C"]
    assert council.verdict.method == "chair"


async def _plugin(table: Table) -> None:
    await BUILT_IN["solo"](table)


plugin = _plugin


def test_a_package_adds_a_strategy() -> None:
    """By an entry point; the built-in ones stay."""
    strategies = load_strategies([EntryPoint("mine", "tests.council.test_registry:plugin", "wirthforge.strategies")])
    assert strategies.keys() == {*BUILT_IN, "mine"}
    assert strategies.left_out == []


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("broken", "no_such_module:run", "ModuleNotFoundError"),
        ("broken", "server.council.strategies:GROUP", "it is no function"),
        ("vote", "server.council.strategies:load_strategies", "its name is taken"),
        ("My Own", "server.council.strategies:load_strategies", "other characters"),
    ],
)
def test_a_broken_plugin_is_named_and_left_out(name: str, value: str, reason: str) -> None:
    """It cannot be imported, is no function, wants a built-in name, or one that cannot be asked for."""
    with capture_logs() as logs:
        strategies = load_strategies([EntryPoint(name, value, "wirthforge.strategies")])
    assert strategies == dict(BUILT_IN)
    (line,) = logs
    assert (line["event"], line["plugin"]) == ("strategy plugin left out", name)
    assert reason in line["reason"]
    assert [(left.name, left.reason) for left in strategies.left_out] == [(name, line["reason"])]
