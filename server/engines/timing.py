"""How long a token takes, told from the ends of answers.

When the tokens of an answer are read says little: a busy machine reads many in one burst. When an answer ended says
more, but holds whatever an answer takes beside its tokens. So a figure is a difference: two kinds of runs that differ
in one thing, how many tokens they have, and what the longer ones took more. Each is the median of several, taken in
turns, so that a machine that becomes slower meanwhile slows both. A difference that cannot be (no time, or less than a
token can take) is tried again with more runs, and then told as a fault: a guess would decide what people pay.
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from server.clock import Clock
from server.engines.protocol import Engine
from server.errors import EngineFailed

# The longer one fits a context of 2048 tokens also where a token is a letter.
SHORT_WORDS, LONG_WORDS = 32, 256
ANSWER_TOKENS = 48
RUNS = 3
RETRIES_MAX = 3
# No engine takes less for a token, whatever it answers at a time: twenty million a second.
TOKEN_US_MIN = 0.05
ANSWER_BYTES_MAX = 4 * 1024 * 1024
# Usage is told at the end.
TAIL_BYTES = 64 * 1024
# For engines that cannot be told to go on.
LASTLY = "Now count from one to one thousand, in words."


class Timing(Struct, frozen=True):
    """A run: tokens as the engine counted them, and how long it took, from the first request to the last end."""

    input_tokens: int
    output_tokens: int
    took_us: int


class Slope(Struct, frozen=True):
    """What each token more took, and what the shorter run took as a whole, in microseconds."""

    token_us: float
    shorter_us: float


Run = Callable[[], Awaitable[Timing]]


class Asker:
    """Asks one model of one engine.

    Args:
        nonce: gives a text that was never sent before, so that no cache answers.
    """

    def __init__(self, engine: Engine, model: str, *, clock: Clock, nonce: Callable[[], str]) -> None:
        self.engine, self.model = engine, model
        self._clock, self._nonce = clock, nonce

    async def ask(self, words: int, tokens: int, *, on_begun: Callable[[], object] = lambda: None) -> Timing:
        """One answer.

        Args:
            on_begun: called once the engine has begun to answer.

        Raises:
            EngineFailed: it tells no usage, or does not end.
            WirthforgeError: whatever the engine raises.
        """
        nonce = self._nonce()
        began_us = self._clock.monotonic_us()
        reply = await self.engine.open("chat.completions", self._body(nonce, words, tokens), nonce, nonce)
        tail, size = b"", 0
        try:
            on_begun()
            async for chunk in reply.chunks():
                size += len(chunk)
                tail = (tail + chunk)[-TAIL_BYTES:]
                if size > ANSWER_BYTES_MAX:
                    raise EngineFailed(f"Engine {self.engine.name} does not stop where it is told to.")
        finally:
            reply.close()
        took_us = self._clock.monotonic_us() - began_us
        usage = _usage(tail)
        if usage is None:
            raise EngineFailed(f"Engine {self.engine.name} tells no usage: it cannot be measured.")
        return Timing(*usage, took_us)

    async def together(self, answers: int, tokens: int) -> Timing:
        """So many answers at a time, as one run. Raises like `ask`; then none of them goes on."""
        began_us = self._clock.monotonic_us()
        timings = await _all([self.ask(SHORT_WORDS, tokens) for _ in range(answers)])
        return Timing(
            sum(timing.input_tokens for timing in timings),
            sum(timing.output_tokens for timing in timings),
            self._clock.monotonic_us() - began_us,
        )

    def _body(self, nonce: str, words: int, tokens: int) -> dict[str, Any]:
        prompt = f"{nonce} {' '.join(f'w{number}' for number in range(words))} {LASTLY}"
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
        }


async def slope(
    shorter: Run,
    longer: Run,
    count: Callable[[Timing], int],
    *,
    tokens_min: int,
    engine: str,
    token_us_min: float = TOKEN_US_MIN,
) -> Slope:
    """What a token takes, from runs that differ in the number of those that `count` counts.

    Raises:
        EngineFailed: they differ by fewer than `tokens_min`, or the longer ones took no time more, or so little that
            a token took less than `token_us_min`, however often that was tried.
        WirthforgeError: what the runs raise.
    """
    less: list[Timing] = []
    more: list[Timing] = []
    tokens = token_us = 0.0
    for _ in range(1 + RETRIES_MAX):
        for _ in range(RUNS):
            less.append(await shorter())
            more.append(await longer())
        tokens = _median([count(run) for run in more]) - _median([count(run) for run in less])
        if tokens < tokens_min:
            raise EngineFailed(
                f"Engine {engine} gives too little to measure: {tokens:g} tokens more, not {tokens_min}."
            )
        shorter_us = _median([run.took_us for run in less])
        token_us = (_median([run.took_us for run in more]) - shorter_us) / tokens
        if token_us >= token_us_min:
            return Slope(token_us, shorter_us)
    raise EngineFailed(
        f"Engine {engine} cannot be measured: {tokens:g} tokens more took it {token_us * tokens / 1000:.1f} ms, less "
        f"than can be, tried again {RETRIES_MAX} times. Something else may keep the machine busy."
    )


def _median(values: Sequence[int]) -> float:
    return float(statistics.median(values))


async def _all(asking: Sequence[Awaitable[Timing]]) -> list[Timing]:
    """All results; where one fails, the others are ended before its fault is raised."""
    tasks = [asyncio.ensure_future(each) for each in asking]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _usage(events: bytes) -> tuple[int, int] | None:
    for line in reversed(events.splitlines()):
        if line.startswith(b"data:") and b'"prompt_tokens"' in line:
            try:
                usage = msgspec.json.decode(line.removeprefix(b"data:"))["usage"]
                counts = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, ValueError):
                return None
            return counts if min(counts) >= 0 else None
    return None
