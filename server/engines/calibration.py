"""How fast an engine is: what a prompt token and an answer token cost it in time, alone and together.

    prefill    a long prompt less a short one, one answer token each
    decode     a short prompt with ANSWER_TOKENS less the same with one
    together   the same with 2, 4, 8 … answers at a time

(timing.py says how such a difference is taken; contention.py what engines leave each other.) From these follow the cost
of a token (quotas/cost.py: service units are meant to be time of the box) and how many slots are worth having: beyond
the knee another answer slows all others and adds nothing. Times are wall-clock times of an engine that is otherwise
idle: if others use it meanwhile, they are wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter

from msgspec import Struct

from quotas.cost import COST_MAX
from server.clock import Clock
from server.engines.protocol import Engine
from server.engines.timing import ANSWER_TOKENS, LONG_WORDS, SHORT_WORDS, TOKEN_US_MIN, Asker, slope

TOGETHER_MAX = 128
# Another doubling of answers that adds less than this part is not worth their waiting.
WORTH = 0.1
# After so many doublings in a row that were not worth it, more are not tried.
FLAT_MAX = 2
# That many answers are so much faster than one, each by itself, is no property of engines but a fault of the clock.
SPEED_UP_MAX = 3


class Together(Struct, frozen=True):
    """So many answers at a time, and what comes of it, in tokens a second of all of them."""

    answers: int
    tokens_per_s: float


class Beside(Struct, frozen=True):
    """What is left of a model's own rate while others answer without a pause; 1 is all of it.

    Attributes:
        others: as engine and model.
    """

    others: tuple[tuple[str, str], ...]
    left: float


class Calibration(Struct, frozen=True, kw_only=True):
    """What was measured of one model on one engine.

    Attributes:
        prefill_us: time of a prompt token, in microseconds.
        decode_us: time of an answer token with nothing else running.
        first_token_ms: a short prompt and one token, to the end of the answer.
        together: rates by the number of answers at a time.
        knee: the number of answers beyond which more add next to nothing.
        output_cost: what an answer token costs, in prompt tokens, with `knee` answers at a time.
        beside: what other models leave of its rate.
    """

    engine: str
    model: str
    prefill_us: float
    decode_us: float
    first_token_ms: float
    together: tuple[Together, ...]
    knee: int
    output_cost: int
    beside: tuple[Beside, ...] = ()


async def calibrate(
    engine: Engine, model: str, *, clock: Clock, nonce: Callable[[], str], answers_max: int = TOGETHER_MAX
) -> Calibration:
    """Measure one model.

    Args:
        nonce: gives a text that was never sent before.
        answers_max: at a time.

    Raises:
        EngineFailed: it answers, but tells no usage, gives too short answers to time, or its times make no sense.
        WirthforgeError: whatever it raises when asked.
    """
    asker = Asker(engine, model, clock=clock, nonce=nonce)
    short = partial(asker.ask, SHORT_WORDS, 1)
    await short()  # whatever is done only once
    prefill = await slope(
        short,
        partial(asker.ask, LONG_WORDS, 1),
        attrgetter("input_tokens"),
        tokens_min=(LONG_WORDS - SHORT_WORDS) // 4,
        engine=engine.name,
    )
    together: list[Together] = []
    answers, flat = 1, 0
    while answers <= min(answers_max, TOGETHER_MAX) and flat < FLAT_MAX:
        token_us = await decode_us(asker, answers, least_us=_least_us(together, answers))
        together.append(Together(answers, 1e6 / token_us))
        flat = flat + 1 if answers > knee_of(together) else 0
        answers *= 2
    knee = knee_of(together)
    rate = next(each.tokens_per_s for each in together if each.answers == knee)
    return Calibration(
        engine=engine.name,
        model=model,
        prefill_us=prefill.token_us,
        decode_us=1e6 / together[0].tokens_per_s,
        first_token_ms=prefill.shorter_us / 1000,
        together=tuple(together),
        knee=knee,
        output_cost=_whole(1e6 / rate / prefill.token_us),
    )


async def decode_us(asker: Asker, answers: int = 1, *, least_us: float = 0.0) -> float:
    """What an answer token takes, of so many answers at a time together.

    Args:
        least_us: what takes less is not believed.

    Raises:
        EngineFailed: see `slope`.
    """
    found = await slope(
        partial(asker.together, answers, 1),
        partial(asker.together, answers, ANSWER_TOKENS),
        attrgetter("output_tokens"),
        tokens_min=answers * ANSWER_TOKENS // 4,
        engine=asker.engine.name,
        token_us_min=max(least_us, TOKEN_US_MIN),
    )
    return found.token_us


def knee_of(together: Sequence[Together]) -> int:
    """The last number of answers to which the rate grew enough to be worth it."""
    knee = together[0]
    for each in together[1:]:
        if each.tokens_per_s < knee.tokens_per_s * (1 + WORTH):
            break
        knee = each
    return knee.answers


def costs_of(calibrations: Sequence[Calibration]) -> Mapping[str, tuple[int, int]]:
    """What tokens of each model cost, input and output, in prompt tokens of the fastest.

    Where several engines have a model, it costs what it does on the fastest of them: who asks does not choose.
    """
    if not calibrations:
        return {}
    unit_us = min(each.prefill_us for each in calibrations)
    slowest_first = sorted(calibrations, key=attrgetter("prefill_us"), reverse=True)
    return {
        each.model: (_whole(each.prefill_us / unit_us), _whole(each.output_cost * each.prefill_us / unit_us))
        for each in slowest_first
    }


def _least_us(together: Sequence[Together], answers: int) -> float:
    return 1e6 / together[0].tokens_per_s / answers / SPEED_UP_MAX if together else 0.0


def _whole(cost: float) -> int:
    return min(max(round(cost), 1), COST_MAX)
