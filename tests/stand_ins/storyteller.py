"""A stand-in engine that tells one story word by word, and goes on with a story that was begun, as vLLM does by text.

It can hold its breath after some words, die, and fail in every way that an engine may when it is to go on.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from tests.stand_ins.openai_engine import Order, event, event_stream, usage_event

PROMPT_TOKENS = 7
WORDS = 120
HOLD, FAST = "please wait", "quickly"

Way = Literal["well", "refuses", "hangs", "rubbish", "breaks", "empty"]


def story(words: int = WORDS, first: int = 0) -> str:
    """Its words, from one on."""
    return "".join(f" wörd{number}" for number in range(first, words))


@dataclass
class Storyteller:
    """A behaviour of the stand-in.

    Attributes:
        held_after: words after which an answer waits for `go`, if its prompt asks for that (HOLD); None: never.
        dies_after: words after which it hangs up.
        half: bytes that come before it does.
        way: how it goes on.
        waits_at_end: whether it holds its breath once more, between the finish reason and usage.
        delta: the field of an event that holds the words.
        begun: how many words each request came with.
    """

    go: asyncio.Event = field(default_factory=asyncio.Event)
    held_after: int | None = None
    dies_after: int | None = None
    half: bytes = b""
    way: Way = "well"
    waits_at_end: bool = False
    delta: str = "content"
    word_bytes: int = 0
    begun: list[int] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, _order: Order, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """Answer a chat."""
        last = body["messages"][-1]
        said = last["content"] if last["role"] == "assistant" else ""
        first = len(said.split())
        assert not said or said == story(first), "it was given what it never said"
        self.begun.append(first)
        self.bodies.append(body)
        if said and self.way == "refuses":
            return web.json_response({"error": {"message": "The last message must be the user's."}}, status=400)
        if said and self.way == "hangs":
            await asyncio.Event().wait()
        return await self._told(request, body, first)

    async def _told(self, request: web.Request, body: dict[str, Any], first: int) -> web.StreamResponse:
        response = await event_stream(request)
        if first and self.way in {"rubbish", "empty"}:
            await response.write(b"data: {rubbish\n\n" if self.way == "rubbish" else b"")
            return response
        await response.write(event({"role": "assistant", "content": None}))
        limit = min(WORDS, first + (body.get("max_tokens") or WORDS))
        for number in range(first, limit):
            if number == self.held_after and HOLD in str(body["messages"]):
                await self.go.wait()
            if number == self.dies_after or (first and self.way == "breaks"):
                await response.write(self.half)
                assert request.transport is not None
                request.transport.close()
                return response
            await response.write(event({self.delta: f" wörd{number}" + "." * self.word_bytes}))
        await response.write(event({}, "stop" if limit == WORDS else "length"))
        if self.waits_at_end and HOLD in str(body["messages"]):
            await self.go.wait()
        await response.write(usage_event({"prompt_tokens": PROMPT_TOKENS + first, "completion_tokens": limit - first}))
        await response.write(b"data: [DONE]\n\n")
        return response


def asked(prompt: str, **more: Any) -> dict[str, Any]:
    """A question."""
    return {"model": "stand-in", "messages": [{"role": "user", "content": prompt}], **more}
