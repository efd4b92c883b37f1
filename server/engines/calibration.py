"""How fast an engine is: what a prompt token and an answer token cost it in time, alone and together.

    prefill      two prompts of different length, one answer token each: the difference is the tokens' time
    decode       one answer: the time between its first and its last token
    together     the same with 2, 4, 8 … answers at a time, as many as there are slots
    contention   two engines of one box asked at once, beside each alone: what they take from each other

From that follow the cost of a token (quotas/cost.py: service units are meant to be time of the box) and how many slots
are worth having: beyond the knee another answer slows all others and adds nothing. Every prompt begins with a text that
was never sent before, so that no cache answers; each figure is the median of several runs. Times are wall-clock times
of an engine that is otherwise idle: if others use it meanwhile, they are wrong.
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from quotas.cost import COST_MAX
from server.clock import Clock
from server.engines.protocol import Engine
from server.errors import EngineFailed

SHORT_WORDS, LONG_WORDS = 32, 512
ANSWER_TOKENS = 48
RUNS = 3
TOGETHER_MAX = 128
# Another doubling of answers that adds less than this part is not worth their waiting.
WORTH = 0.1
US_PER_MS = 1_000


class Together(Struct, frozen=True):
    """So many answers at a time, and what comes of it, in tokens a second of all of them."""

    answers: int
    tokens_per_s: float


class Calibration(Struct, frozen=True, kw_only=True):
    """What was measured of one model on one engine.

    Attributes:
        prefill_us: time of a prompt token, in microseconds.
        decode_us: time of an answer token with nothing else running.
        first_token_ms: of the short prompt.
        together: rates by the number of answers at a time.
        knee: the number of answers beyond which more add next to nothing.
        output_cost: what an answer token costs, in prompt tokens, with `knee` answers at a time.
    """

    engine: str
    model: str
    prefill_us: float
    decode_us: float
    first_token_ms: float
    together: tuple[Together, ...]
    knee: int
    output_cost: int


class _Timing(Struct, frozen=True):
    """One answer: tokens as the engine counted them, and times from the request on, in milliseconds."""

    input_tokens: int
    output_tokens: int
    first_ms: float
    last_ms: float


async def calibrate(engine: Engine, model: str, *, clock: Clock, nonce: Callable[[], str]) -> Calibration:
    """Measure one model.

    Args:
        nonce: gives a text that was never sent before.

    Raises:
        EngineFailed: it answers, but tells no usage, or gives too short answers to time.
        WirthforgeError: whatever it raises when asked.
    """
    ask = _Asker(engine, model, clock, nonce)
    await ask(SHORT_WORDS, 1)  # whatever is done only once
    short = await _median(partial(ask, SHORT_WORDS, 1))
    long = await _median(partial(ask, LONG_WORDS, 1))
    alone = await _median(partial(ask, SHORT_WORDS, ANSWER_TOKENS))
    added = long.input_tokens - short.input_tokens
    if added <= 0 or alone.output_tokens < ANSWER_TOKENS // 4:
        raise EngineFailed(
            f"Engine {engine.name} gives too little to measure: {added} more prompt tokens, "
            f"{alone.output_tokens} answer tokens."
        )
    prefill_us = max(long.first_ms - short.first_ms, 0.001) * 1000 / added
    together = [Together(1, 1e6 / _decode_us(alone))]
    answers = 2
    while answers <= min(engine.slots, TOGETHER_MAX):
        together.append(Together(answers, await _rate(ask, answers)))
        answers *= 2
    knee = knee_of(together)
    rate = next(each.tokens_per_s for each in together if each.answers == knee)
    return Calibration(
        engine=engine.name,
        model=model,
        prefill_us=prefill_us,
        decode_us=_decode_us(alone),
        first_token_ms=short.first_ms,
        together=tuple(together),
        knee=knee,
        output_cost=min(max(round(1e6 / rate / prefill_us), 1), COST_MAX),
    )


async def contention(
    engines: Mapping[str, tuple[Engine, str]], *, clock: Clock, nonce: Callable[[], str]
) -> Mapping[str, float]:
    """What is left of each engine's solo rate while all of them answer: 1 is no contention. Raises like `calibrate`."""
    asks = {name: _Asker(engine, model, clock, nonce) for name, (engine, model) in engines.items()}
    alone = {name: _decode_us(await _median(partial(ask, SHORT_WORDS, ANSWER_TOKENS))) for name, ask in asks.items()}
    beside = await asyncio.gather(*(ask(SHORT_WORDS, ANSWER_TOKENS) for ask in asks.values()))
    return {name: alone[name] / _decode_us(timing) for name, timing in zip(asks, beside, strict=True)}


def knee_of(together: Sequence[Together]) -> int:
    """The last number of answers to which the rate grew enough to be worth it."""
    knee = together[0]
    for each in together[1:]:
        if each.tokens_per_s < knee.tokens_per_s * (1 + WORTH):
            break
        knee = each
    return knee.answers


def costs_of(calibrations: Sequence[Calibration]) -> dict[str, tuple[int, int]]:
    """What tokens of each model cost, input and output, in prompt tokens of the fastest."""
    if not calibrations:
        return {}
    unit_us = min(each.prefill_us for each in calibrations)
    return {
        each.model: (
            min(max(round(each.prefill_us / unit_us), 1), COST_MAX),
            min(max(round(each.output_cost * each.prefill_us / unit_us), 1), COST_MAX),
        )
        for each in calibrations
    }


class _Asker:
    """Asks one engine and times it."""

    def __init__(self, engine: Engine, model: str, clock: Clock, nonce: Callable[[], str]) -> None:
        self._engine, self._model, self._clock, self._nonce = engine, model, clock, nonce

    async def __call__(self, words: int, tokens: int) -> _Timing:
        nonce = self._nonce()
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": f"{nonce} " + " ".join(f"w{number}" for number in range(words))}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
        }
        began_us = self._clock.monotonic_us()
        reply = await self._engine.open("chat.completions", body, nonce, nonce)
        first_us = last_us = 0
        text = bytearray()
        try:
            async for chunk in reply.chunks():
                now_us = self._clock.monotonic_us()
                text += chunk
                if b'"content":"' in chunk or b'"reasoning' in chunk:
                    first_us, last_us = first_us or now_us, now_us
        finally:
            reply.close()
        usage = _usage(bytes(text))
        if usage is None or not first_us:
            raise EngineFailed(f"Engine {self._engine.name} tells no usage, or writes nothing: it cannot be measured.")
        return _Timing(*usage, (first_us - began_us) / US_PER_MS, (last_us - began_us) / US_PER_MS)


def _usage(events: bytes) -> tuple[int, int] | None:
    for line in reversed(events.splitlines()):
        if line.startswith(b"data:") and b'"prompt_tokens"' in line:
            try:
                usage = msgspec.json.decode(line.removeprefix(b"data:"))["usage"]
                return int(usage["prompt_tokens"]), int(usage["completion_tokens"])
            except (msgspec.DecodeError, KeyError, TypeError, ValueError):
                return None
    return None


def _decode_us(timing: _Timing) -> float:
    return max(timing.last_ms - timing.first_ms, 0.001) * 1000 / max(timing.output_tokens - 1, 1)


async def _median(ask: Callable[[], Awaitable[_Timing]]) -> _Timing:
    """The run whose time is in the middle."""
    timings = [await ask() for _ in range(RUNS)]
    middle = statistics.median_low([timing.last_ms for timing in timings])
    return next(timing for timing in timings if timing.last_ms == middle)


async def _rate(ask: _Asker, answers: int) -> float:
    """Tokens a second of so many answers at a time, while all of them are being written."""
    timings = await asyncio.gather(*(ask(SHORT_WORDS, ANSWER_TOKENS) for _ in range(answers)))
    span_ms = max(timing.last_ms for timing in timings) - min(timing.first_ms for timing in timings)
    return sum(max(timing.output_tokens - 1, 0) for timing in timings) / max(span_ms, 0.001) * 1000
