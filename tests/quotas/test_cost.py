"""What tokens cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotas.cost import CACHED_DIVISOR, COST_MAX, Cost, read_costs

tokens = st.integers(0, 1 << 31)
prices = st.integers(1, COST_MAX)
costs = st.builds(Cost, input=prices, output=prices)


def test_reading_costs_one_and_writing_two() -> None:
    """Until a box was calibrated; a tenth for what the engine had in its cache."""
    assert Cost().of(100, 10) == 120
    assert Cost().of(100, 10, 40) == 60 + 4 + 20
    assert Cost(3, 7).of(10, 2) == 44


@given(costs, tokens, tokens, tokens)
def test_a_cache_only_makes_cheaper(cost: Cost, read: int, written: int, cached: int) -> None:
    """However much is said to be cached, a prompt costs between a tenth and the whole, and the answer always counts."""
    found = cost.of(read, written, cached)
    assert cost.of(read, 0) // CACHED_DIVISOR <= found - cost.of(0, written) <= cost.of(read, 0)
    assert cost.of(read, written, -cached) == cost.of(read, written)


@given(costs, tokens, tokens, tokens, st.integers(0, 1000))
def test_more_tokens_never_cost_less(cost: Cost, read: int, written: int, cached: int, more: int) -> None:
    """Also beside a cache."""
    assert cost.of(read + more, written, cached) >= cost.of(read, written, cached)
    assert cost.of(read, written + more, cached) >= cost.of(read, written, cached)


@given(st.dictionaries(st.text(min_size=1), costs, max_size=5))
def test_costs_are_read_as_they_are_written(wanted: dict[str, Cost]) -> None:
    """Whatever a model is called, also with an equals sign or a colon in its name."""
    assert read_costs(tuple(f"{model}={cost.input}:{cost.output}" for model, cost in wanted.items())) == wanted


@pytest.mark.parametrize(
    "entry",
    [
        *("", "=", "m", "m=", "=1:2", "m=1", "m=1:", "m=:2", "m=1:2:3", "m=0:1", "m=1:0", "m=-1:2", "m=1.5:2"),
        *("m=a:b", "m= 1:2", "m=1:2 ", "m=٣:٤", "m=²:1", f"m={COST_MAX + 1}:1", "m=1e3:1", "m=1_0:1", "m=1,2"),
    ],
)
def test_a_cost_that_will_not_do_is_named(entry: str) -> None:
    """With the whole entry, so that whoever wrote it finds it."""
    with pytest.raises(ValueError, match=r".*") as caught:
        read_costs(("good=1:2", entry))
    assert str(caught.value) == entry


@given(st.text())
def test_any_text_is_a_cost_or_is_refused(entry: str) -> None:
    """Nothing else comes out."""
    try:
        ((model, cost),) = read_costs((entry,)).items()
    except ValueError as error:
        assert str(error) == entry  # noqa: PT017 (most texts are refused, and not all)
    else:
        assert entry.startswith(f"{model}=")
        assert min(cost.input, cost.output) >= 1
