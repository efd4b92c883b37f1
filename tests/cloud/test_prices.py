"""What a request costs: at the most, before it leaves, and then really."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from server.cloud.prices import UNSEEN_TOKENS_MAX, cheapness, cost_micros, reserved_micros
from server.cloud.protocol import CloudModel
from tests.cloud.wires import LARGE

COUNTS = st.integers(0, 1 << 31)
PRICES = st.integers(0, 10**12)


def model(read: int, written: int) -> CloudModel:
    """One at these prices."""
    return replace(LARGE, input_micros_per_million=read, output_micros_per_million=written)


def test_a_request_by_hand() -> None:
    """3 and 15 a million: a thousand tokens read and a hundred written are 0.0045, in whole millionths."""
    assert cost_micros(LARGE, 1000, 100) == 3000 + 1500
    assert cost_micros(LARGE, 0, 0) == 0
    assert cost_micros(model(1, 0), 1, 0) == 1
    assert cost_micros(model(0, 0), 1 << 31, 1 << 31) == 0
    assert reserved_micros(b"x" * 1000, {}, LARGE) == cost_micros(LARGE, 1000 + UNSEEN_TOKENS_MAX, 1000)


@given(read=PRICES, written=PRICES, inputs=COUNTS, outputs=COUNTS)
def test_a_cost_is_never_too_low(read: int, written: int, inputs: int, outputs: int) -> None:
    """It is rounded up, by less than one."""
    exact = inputs * read + outputs * written
    assert exact <= cost_micros(model(read, written), inputs, outputs) * 1_000_000 < exact + 1_000_000


@given(
    text=st.text(max_size=300),
    asked=st.none() | st.integers(-1, 3000),
    answers=st.integers(1, 4),
    read=PRICES,
    written=PRICES,
)
def test_what_is_reserved_is_enough(text: str, asked: int | None, answers: int, read: int, written: int) -> None:
    """For a token a byte of the prompt, and answers as long as they were asked for."""
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": asked, "n": answers}
    bound = asked if asked is not None and 0 < asked < LARGE.output_tokens_max else LARGE.output_tokens_max
    priced = model(read, written)
    least = cost_micros(priced, len(text.encode()), bound * answers)
    assert reserved_micros(msgspec.json.encode(body), body, priced) >= least


def test_the_cheaper_one_comes_first() -> None:
    """By both prices together, and by name where they are the same."""
    models = [model(5, 5), replace(model(1, 9), name="a"), model(1, 8)]
    assert [each.name for each in sorted(models, key=cheapness)] == [LARGE.name, "a", LARGE.name]


@pytest.mark.parametrize(
    "fields",
    [
        {"input_micros_per_million": -1},
        {"output_micros_per_million": 1.5},
        {"output_tokens_max": 0},
        {"name": "a b"},
        {"name": ""},
        {"name": "ä"},
        {"leaves_out": ["max_tokens"]},
        {"leaves_out": ["model"]},
        {"stands_in_for": ["a\n"]},
    ],
)
def test_a_model_that_cannot_be_is_refused(fields: dict[str, object]) -> None:
    """No price below nothing, no name that a header cannot carry, no bound that is left out."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(msgspec.to_builtins(LARGE) | fields, CloudModel)
