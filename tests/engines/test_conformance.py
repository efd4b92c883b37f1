"""The conformance test: what it finds of an engine that misbehaves, each in its own way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from server.clock import SystemClock
from server.embedded.llama import Llama
from server.engines import conformance
from server.engines.conformance import Conformance, examine
from server.engines.openai_compatible import OpenAICompatible
from tests.stand_ins import openai_engine
from tests.stand_ins.openai_engine import MODEL, Order, event, event_stream, usage_event


@asynccontextmanager
async def engine_of(order: Order) -> AsyncIterator[OpenAICompatible]:
    """An adapter for a stand-in."""
    async with openai_engine.serve(order) as url:
        engine = OpenAICompatible(url, slots=4, silence_ms_max=2_000, kind="vllm")
        yield engine
        await engine.close()


async def found(order: Order) -> Conformance:
    """What is found of it."""
    async with engine_of(order) as engine:
        return await examine(engine, MODEL, "nonce", SystemClock())


class Cache:
    """An engine with a cache of prompts, whose keys hold the salt or do not; and that stops or does not."""

    def __init__(self, *, is_salted: bool = True, stops: bool = True) -> None:
        self._is_salted, self._stops = is_salted, stops
        self._known: set[tuple[str, str]] = set()
        self._left: set[asyncio.Task[None]] = set()

    async def __call__(self, order: Order, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """A behaviour of the stand-in."""
        key = (body["messages"][0]["content"], body["cache_salt"] if self._is_salted else "")
        hits = 250 if key in self._known else 0
        self._known.add(key)
        response = await event_stream(request)
        await response.write(event({"content": "one"}))
        if body["max_tokens"] > 100:  # the long one, which is left
            if not self._stops:
                order.running.add("for ever")
            await asyncio.Event().wait()
        usage: Any = {"prompt_tokens": 300, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": hits}}
        await response.write(usage_event(usage))
        await response.write(b"data: [DONE]\n\n")
        return response


async def test_an_engine_that_keeps_all_promises() -> None:
    """Yes to everything, and how soon it stopped."""
    result = await found(Order(behaviour=Cache(), tells_running=True))
    assert (result.stops, result.counts, result.isolates, result.error) == ("yes", "yes", "yes", None)
    assert result.stopped_after_ms is not None


async def test_one_that_shows_people_each_others_prompts() -> None:
    """Its cache does not know salts."""
    assert (await found(Order(behaviour=Cache(is_salted=False)))).isolates == "no"


async def test_one_that_goes_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its metrics say that it runs on when its client has left."""
    monkeypatch.setattr(conformance, "STOPS_MS_MAX", 200)
    result = await found(Order(behaviour=Cache(stops=False), tells_running=True))
    assert (result.stops, result.stopped_after_ms) == ("no", None)


async def test_one_that_does_not_tell() -> None:
    """Without metrics, usage or a cache nobody knows; that it does not count is known."""
    result = await found(Order(usage=None))
    assert (result.stops, result.counts, result.isolates) == ("unknown", "no", "unknown")


async def test_one_that_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it stops cannot be seen behind other requests."""
    monkeypatch.setattr(conformance, "IDLE_MS_MAX", 200)
    order = Order(behaviour=Cache(), tells_running=True)
    order.running.add("another")
    assert (await found(order)).stops == "unknown"


async def test_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test ends, and says so."""
    monkeypatch.setattr(conformance, "TEST_MS_MAX", 200)
    order = Order()
    order.hold.clear()
    result = await found(order)
    assert (result.error, result.stops, result.counts, result.isolates) == (
        "It took too long.",
        *["unknown"] * 3,
    )


async def test_one_that_fails() -> None:
    """Its fault is told instead."""

    async def refuse(_order: Order, _request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=500)

    assert "failed with status 500" in str((await found(Order(behaviour=refuse))).error)


class Continuing:
    """An engine that goes on with the beginning of an answer, or misunderstands it in one of several ways."""

    ANSWER = ("The ", "sea ", "is ", "wide ", "and ", "old ", "and ", "never ", "still ", "for ", "long ", ".")

    def __init__(self, way: str) -> None:
        self._way = way
        self.begun: list[str] = []

    async def __call__(self, _order: Order, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """A behaviour of the stand-in."""
        last = body["messages"][-1]
        said = last["content"] if last["role"] == "assistant" else ""
        if said:
            self.begun.append(said)
            assert body["continue_final_message"] is True
            assert body["add_generation_prompt"] is False
            if self._way == "refuses":
                return web.json_response({"error": {"message": "The last message must be the user's."}}, status=400)
        pieces = self.ANSWER[len(said.split()) :]
        match self._way if said else "":
            case "greets":
                pieces = ("Hello! ", "What ", "can ", "I ", "do ", "for ", "you?")
            case "echoes":
                pieces = (said, *pieces)
            case "repeats":
                pieces = (said.split()[-1] + " ", *pieces)
            case _:
                pass
        response = await event_stream(request)
        for piece in pieces:
            await response.write(event({"content": piece}))
        await response.write(usage_event({"prompt_tokens": 9, "completion_tokens": len(pieces)}))
        await response.write(b"data: [DONE]\n\n")
        return response


@pytest.mark.parametrize(
    ("way", "verdict"), [("goes on", "yes"), ("greets", "no"), ("echoes", "no"), ("repeats", "no"), ("refuses", "no")]
)
async def test_whether_an_engine_goes_on_with_an_answer(way: str, verdict: str) -> None:
    """A new greeting, the same words again, a refusal: each means that it does not."""
    behaviour = Continuing(way)
    assert (await found(Order(behaviour=behaviour))).continues == verdict
    assert behaviour.begun[0] == "The sea is wide "


async def test_whether_a_real_one_does(wandering: Llama) -> None:
    """llama.cpp does, by the ids of its tokens."""
    engine = OpenAICompatible(
        wandering.base_url, kind="llama-server", slots=2, silence_ms_max=60_000, api_key=wandering.api_key
    )
    result = await examine(engine, "w", "nonce", SystemClock())
    await engine.close()
    assert (result.continues, result.error) == ("yes", None)
