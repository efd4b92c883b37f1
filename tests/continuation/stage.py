"""A box in front of storytellers, and people who are paused and moved there."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
from redis.asyncio import Redis

from server.db.models import Usage
from server.engines.openai_compatible import OpenAICompatible
from tests.boxes import Box, Person
from tests.stand_ins import openai_engine
from tests.stand_ins.storyteller import HOLD, PROMPT_TOKENS, WORDS, Storyteller, asked, story

PATH = "/v1/chat/completions"
SLOTS = 2
POLL_MS = 5
WITHIN_MS = 20_000


class Heard:
    """What a client has heard of a stream, while it goes on."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.text = ""
        self.reasons: list[str] = []
        self.usage: dict[str, Any] = {}
        self.error: dict[str, Any] | None = None

    async def listen(self, box: Box, person: Person, body: dict[str, Any]) -> None:
        """To the end of the stream."""
        more = {"stream": True, "stream_options": {"include_usage": True}}
        async with (
            box.http(headers=person.bearer) as client,
            client.stream("POST", PATH, json=body | more, timeout=60) as response,
        ):
            async for line in response.aiter_lines():
                self.lines.append(line)
                if line.startswith("data: {"):
                    self._take(json.loads(line.removeprefix("data: ")))

    def _take(self, message: dict[str, Any]) -> None:
        assert self.error is None, "something came after the error"
        self.error = message.get("error")
        self.usage = message.get("usage") or self.usage
        for choice in message.get("choices", ()):
            self.text += choice.get("delta", {}).get("content") or ""
            self.reasons += [choice["finish_reason"]] if choice.get("finish_reason") else []

    def comments(self, word: str) -> list[str]:
        """Those that begin with a word."""
        return [line for line in self.lines if line.startswith(f": {word}")]


class Stage:
    """One box, its engines by name, a hog and a guest."""

    def __init__(self, box: Box, tellers: dict[str, Storyteller], redis: Redis) -> None:
        self.box = box
        self.tellers = tellers
        self.redis = redis
        self.tasks: list[asyncio.Task[Any]] = []

    async def until(self, what: Any, within_ms: int = WITHIN_MS) -> None:
        """Poll until `what()` is true, or what it awaits."""
        deadline_ms = self.box.clock.monotonic_ms() + within_ms
        while True:
            found = what()
            if await found if asyncio.iscoroutine(found) else found:
                return
            assert self.box.clock.monotonic_ms() < deadline_ms, "it never came"
            await self.box.clock.sleep_ms(POLL_MS)

    def hear(self, person: Person, body: dict[str, Any]) -> tuple[Heard, asyncio.Task[None]]:
        """Begin to listen to an answer."""
        heard = Heard()
        task = asyncio.create_task(heard.listen(self.box, person, body))
        self.tasks.append(task)
        return heard, task

    async def ask(self, person: Person, body: dict[str, Any]) -> httpx.Response:
        """An answer in one piece."""
        async with self.box.http(headers=person.bearer) as client:
            return await client.post(PATH, json=body, timeout=60)

    async def pausable(self, engine: str, count: int) -> None:
        """Wait until so many answers could be paused."""

        async def is_so() -> bool:
            return int(await self.redis.zcard(f"wf:{{box}}:pausable:{engine}")) == count

        await self.until(is_so)

    async def paused(self, hog: Person, guest: Person, engine: str = "one") -> tuple[list[Any], Any]:
        """Two long answers of the hog that fill the engine, one of them paused for a guest who holds its slot."""
        self.tellers[engine].held_after = 3
        told = [self.hear(hog, asked(f"{HOLD} {number}")) for number in range(SLOTS)]
        await self.until(lambda: all(heard.text for heard, _ in told))
        await self.pausable(engine, SLOTS)
        guests = self.hear(guest, asked(f"{HOLD} guest"))
        await self.until(lambda: bool(guests[0].text))
        await self.until(lambda: any(heard.comments("paused") for heard, _ in told))
        # The one that is paused first.
        return sorted(told, key=lambda pair: not pair[0].comments("paused")), guests

    async def settled(self, count: int) -> Sequence[Usage]:
        """The rows, when the ledger holds nothing any more."""
        for name in self.tellers:

            async def is_empty(name: str = name) -> bool:
                sets = [f"wf:{{box}}:pausable:{name}", f"wf:{{box}}:recalled:{name}"]
                return await self.box.ledger.load(name) == (0, 0) and not await self.redis.exists(*sets)

            await self.until(is_empty)
        rows = await self.box.usage(count)
        assert len(rows) == count
        assert not [key async for key in self.redis.scan_iter("wf:{box}:request:*")]
        assert not [key async for key in self.redis.scan_iter("wf:{box}:holds:*")]
        for name in self.tellers:
            live = await self.redis.hmget(f"wf:{{box}}:live:{name}", "slots", "prefill", "kv")
            assert {int(each or 0) for each in live} == {0}, (name, live)
        return rows


@asynccontextmanager
async def storytellers(*names: str) -> AsyncIterator[tuple[dict[str, Storyteller], list[OpenAICompatible]]]:
    """Engines of these names, with two slots each, and what they are told."""
    tellers: dict[str, Storyteller] = {}
    engines: list[OpenAICompatible] = []
    async with AsyncExitStack() as stack:
        for name in names:
            tellers[name] = Storyteller()
            url = await stack.enter_async_context(openai_engine.serve(openai_engine.Order(behaviour=tellers[name])))
            engines.append(OpenAICompatible(url, kind="vllm", name=name, slots=SLOTS, silence_ms_max=3_000))
        yield tellers, engines
        for teller in tellers.values():
            teller.go.set()


async def know(box: Box, *names: str) -> None:
    """Let the box test its engines."""
    admin = await box.person("root", "admin")
    async with box.http(headers=admin.bearer) as client:
        for name in names:
            found = (await client.post(f"/api/admin/engines/test/{name}", timeout=60)).json()
            assert found.get("continues") == "yes", found


async def is_whole(told: list[Any]) -> None:
    """All answers are complete, with the usage of answers that were never paused."""
    for heard, task in told:
        async with asyncio.timeout(20):
            await task
        assert (heard.text, heard.reasons) == (story(), ["stop"])
        assert (heard.usage["prompt_tokens"], heard.usage["completion_tokens"]) == (PROMPT_TOKENS, WORDS)
