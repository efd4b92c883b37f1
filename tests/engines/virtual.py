"""Engines whose costs are known, in a time that only their work lets pass.

A machine makes one token for each running answer in a step; how long a step takes depends on how many run on the whole
machine. A prompt takes its words' time before the answer begins. Nothing here waits.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from server.errors import EngineFailed
from server.messages import Pressure, ServedModel, Surface

# What wakes in a step has asked again by the next, after so many rounds of the event loop.
ROUNDS = 20


async def pass_round() -> None:
    """Let everybody else go on once."""
    turn = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turn.set_result, None)
    await turn


class _Answer:
    def __init__(self, tokens: int) -> None:
        self.left = tokens
        self.done = asyncio.Event()


class Machine:
    """A clock (`server.clock.Clock`), and the work that moves it.

    Args:
        step_us: what a step takes with so many answers on all engines.
    """

    def __init__(self, step_us: Callable[[int], int]) -> None:
        self.step_us = step_us
        self.now_us = 0
        self.running: list[_Answer] = []
        self.running_max = 0
        # Called after each step.
        self.on_step: Callable[[], object] = lambda: None
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []
        self._work: asyncio.Task[None] | None = None

    def now(self) -> datetime:
        """Wall-clock time, in UTC."""
        return datetime(2026, 11, 23, 12, tzinfo=UTC) + timedelta(microseconds=self.now_us)

    def monotonic_ms(self) -> int:
        """Milliseconds of work so far."""
        return self.now_us // 1000

    def monotonic_us(self) -> int:
        """Microseconds of work so far."""
        return self.now_us

    async def sleep_ms(self, duration_ms: int) -> None:
        """Until work has taken so long; without any, for ever."""
        turn = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now_us + 1000 * duration_ms, turn))
        await turn

    def begin(self, answer: _Answer) -> None:
        """Work on it too, from the next step on."""
        self.running.append(answer)
        self.running_max = max(self.running_max, len(self.running))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._steps())

    async def _steps(self) -> None:
        while True:
            for _ in range(ROUNDS):
                await pass_round()
            if not self.running:
                return
            self.now_us += self.step_us(len(self.running))
            self._wake()
            self.on_step()
            for answer in self.running:
                answer.left -= 1
                if answer.left <= 0:
                    answer.done.set()
            self.running = [answer for answer in self.running if answer.left > 0]

    def _wake(self) -> None:
        for until_us, turn in self._sleepers:
            if until_us <= self.now_us and not turn.done():
                turn.set_result(None)
        self._sleepers = [each for each in self._sleepers if not each[1].done()]


class _Reply:
    def __init__(self, engine: "VirtualEngine", answer: _Answer, prompt: int, tokens: int) -> None:
        self._engine, self._answer, self._counts = engine, answer, (prompt, tokens)
        self._is_open = True

    async def chunks(self) -> AsyncIterator[bytes]:
        """All tokens in one burst, as a busy reader gets them."""
        await self._answer.done.wait()
        if self._engine.fails_after == self._engine.opened:
            raise EngineFailed("It broke.")
        prompt, tokens = self._counts
        yield b'data: {"choices":[{"delta":{"content":"' + b"x" * tokens + b'"}}]}\n\n'
        usage = {"prompt_tokens": prompt, "completion_tokens": tokens}
        if self._engine.tells_usage:
            yield b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    async def read(self) -> bytes:
        """All of it."""
        return b"".join([chunk async for chunk in self.chunks()])

    def expect_tokens(self) -> None:
        """Nothing changes."""

    def close(self) -> None:
        """Stop working on it."""
        if self._answer in self._engine.machine.running:
            self._engine.machine.running.remove(self._answer)
        if self._is_open:
            self._is_open = False
            self._engine.open_now -= 1


class VirtualEngine:
    """An `Engine` on a machine.

    Args:
        prefill_us: of a word of the prompt.

    Attributes:
        opened, open_now: answers so far, and those that nobody has closed.
        fails_after: which answer breaks.
        longest: it never writes more.
    """

    kind = "virtual"
    kv_tokens = 0
    prefill_chunk_tokens: int | None = None
    books_whole_answers = False

    def __init__(self, machine: Machine, *, name: str = "virtual", prefill_us: int = 0, slots: int = 4) -> None:
        self.name: str = name
        self.slots: int = slots
        self.machine, self.prefill_us = machine, prefill_us
        self.opened = self.open_now = 0
        self.fails_after = -1
        self.longest = 1 << 30
        self.tells_usage = True
        self.version = ""

    @property
    def isolates_caches(self) -> bool | None:
        """Nobody knows."""
        return None

    async def probe(self) -> tuple[ServedModel, ...]:
        """One model."""
        return (ServedModel(id="m", context_tokens=4096, is_demonstration=False),)

    async def metrics(self) -> str | None:
        """None."""
        return None

    async def pressure(self) -> Pressure | None:
        """None."""
        return None

    async def open(self, surface: Surface, body: dict[str, Any], request_id: str, salt: str) -> _Reply:
        """Read the prompt, and begin to answer."""
        assert surface == "chat.completions"
        assert request_id
        assert body["messages"][0]["content"].startswith(salt)
        self.opened += 1
        self.open_now += 1
        words = len(body["messages"][0]["content"].split())
        tokens = min(body["max_tokens"], self.longest)
        self.machine.now_us += self.prefill_us * words
        answer = _Answer(tokens)
        self.machine.begin(answer)
        return _Reply(self, answer, words, tokens)

    async def close(self) -> None:
        """Nothing to let go of."""
