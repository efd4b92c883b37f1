"""How fast an engine is: measured on a real one, and what follows from the figures."""

from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.clock import SystemClock
from server.embedded.llama import Llama
from server.engines.calibration import Calibration, Together, calibrate, contention, costs_of, knee_of
from server.engines.openai_compatible import OpenAICompatible
from server.errors import EngineFailed
from tests.conftest import adapter
from tests.stand_ins.openai_engine import MODEL, Order


def made(model: str, *, prefill_us: float, output_cost: int) -> Calibration:
    """A calibration in which only the costs matter."""
    return Calibration(
        engine=model,
        model=model,
        prefill_us=prefill_us,
        decode_us=prefill_us,
        first_token_ms=1,
        together=(Together(1, 1.0),),
        knee=1,
        output_cost=output_cost,
    )


async def test_a_real_engine_is_measured(llama: Llama) -> None:
    """Prompt tokens are cheaper than answer tokens, two answers at once bring more than one, and costs follow."""
    engine = adapter(llama, name="tiny")
    (model,) = await engine.probe()
    nonces = (f"nonce {number}" for number in count())
    found = await calibrate(engine, model.id, clock=SystemClock(), nonce=lambda: next(nonces))
    assert [each.answers for each in found.together] == [1, 2, 4]
    assert 0 < found.prefill_us < found.decode_us
    assert found.knee in {1, 2, 4}
    assert costs_of([found]) == {model.id: (1, found.output_cost)}
    beside = await contention(
        {"one": (engine, model.id), "two": (engine, model.id)}, clock=SystemClock(), nonce=lambda: next(nonces)
    )
    assert set(beside) == {"one", "two"}
    assert all(0 < left < 3 for left in beside.values())
    await engine.close()


async def test_an_engine_that_does_not_count_cannot_be_measured(engine_url: str, order: Order) -> None:
    """A clear error, and no guess: its prompts are all of one length."""
    order.tokens = 3
    engine = OpenAICompatible(engine_url, slots=2, silence_ms_max=2_000)
    with pytest.raises(EngineFailed, match=r"too little to measure|tells no usage"):
        await calibrate(engine, MODEL, clock=SystemClock(), nonce=lambda: "n")
    await engine.close()


def test_the_knee_is_where_more_answers_add_nothing() -> None:
    """A tenth more is worth it, less is not; what comes after a flat part does not count."""
    rates = [(1, 100.0), (2, 180.0), (4, 190.0), (8, 400.0)]
    assert knee_of([Together(*each) for each in rates]) == 2


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=8))
def test_the_knee_is_one_of_the_numbers_that_were_tried(rates: list[float]) -> None:
    """And up to it every doubling was worth it."""
    together = [Together(2**power, rate) for power, rate in enumerate(rates)]
    knee = knee_of(together)
    until = [each for each in together if each.answers <= knee]
    assert until[-1].answers == knee
    assert all(later.tokens_per_s >= 1.1 * earlier.tokens_per_s for earlier, later in pairwise(until))


def test_costs_are_told_in_prompt_tokens_of_the_fastest_model() -> None:
    """A model that takes ten times as long costs ten times as much, read and written."""
    found = [made("small", prefill_us=50, output_cost=4), made("large", prefill_us=500, output_cost=3)]
    assert costs_of(found) == {"small": (1, 4), "large": (10, 30)}
    assert costs_of([]) == {}
