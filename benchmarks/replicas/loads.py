"""People who ask without a pause through proxies, and what they saw."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.stage import clock

ANSWER_S_MAX = 60


@dataclass
class Told:
    """One request, as its client saw it.

    Attributes:
        request: the server's id of it, where there was an answer.
        status: 0: none.
        tokens: of a stream; `is_whole`: whether it came to its end.
        began_ms, first_ms, ended_ms: on the machine's clock; the first token's is 0 if there was none.
        fault: what went wrong, in the transport or told as an error.
    """

    way: str
    is_stream: bool
    began_ms: int
    request: str = ""
    status: int = 0
    tokens: int = 0
    is_whole: bool = False
    first_ms: int = 0
    ended_ms: int = 0
    fault: str = ""

    @property
    def has_begun(self) -> bool:
        """Whether its client had seen something of the answer."""
        return self.tokens > 0

    @property
    def is_well(self) -> bool:
        """Answered, to the end."""
        return self.status == 200 and self.is_whole and not self.fault  # noqa: PLR2004, RUF100 (OK)


@dataclass
class Load:
    """Clients that go on until they are told to end; each ends its last request.

    Attributes:
        ways: URLs by name; client n takes the way n modulo their number.
        word: what a token is in the engine's stream.
    """

    ways: Mapping[str, str]
    keys: Sequence[str]
    body: Mapping[str, Any]
    word: bytes
    clients: int
    told: list[Told] = field(default_factory=list)
    is_over: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self) -> None:
        """Start them."""
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self.clients)]

    async def end(self) -> list[Told]:
        """Let them finish; what they saw."""
        self.is_over = True
        await asyncio.gather(*self._tasks)
        return self.told

    async def some(self, count: int) -> None:
        """Wait for so many more answers."""
        wanted = sum(told.is_well for told in self.told) + count
        deadline_ms = clock.monotonic_ms() + ANSWER_S_MAX * 1000
        while sum(told.is_well for told in self.told) < wanted:
            assert clock.monotonic_ms() < deadline_ms, Counter(told.fault for told in self.told)
            await clock.sleep_ms(20)

    async def _client(self, number: int) -> None:
        way = list(self.ways)[number % len(self.ways)]
        headers = {"Authorization": f"Bearer {self.keys[number % len(self.keys)]}"}
        timeout = aiohttp.ClientTimeout(total=ANSWER_S_MAX)
        # This library asks again by itself what may be repeated; a POST is not among it.
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            turn = 0
            while not self.is_over:
                turn += 1
                # Every third answer comes in one piece.
                told = Told(way, turn % 3 != 0, clock.monotonic_ms())
                self.told.append(told)
                await self._ask(session, told)
                told.ended_ms = clock.monotonic_ms()

    async def _ask(self, session: aiohttp.ClientSession, told: Told) -> None:
        body = {**self.body, "stream": told.is_stream}
        try:
            async with session.post(f"{self.ways[told.way]}/v1/chat/completions", json=body) as answer:
                told.status = answer.status
                told.request = answer.headers.get("x-request-id", "")
                if answer.status != 200:  # noqa: PLR2004, RUF100 (OK)
                    told.fault = (await answer.text())[:300]
                    return
                async for line in answer.content:
                    if not told.tokens and self.word in line:
                        told.first_ms = clock.monotonic_ms()
                    told.tokens += line.count(self.word)
                    if b'"error"' in line:
                        told.fault = line.decode()[:300]
                    told.is_whole |= line.startswith(b"data: [DONE]") or not told.is_stream
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            told.is_whole = False
            told.fault = told.fault or f"{type(error).__name__}: {error}"
