"""Benches: each adapter with an engine that it is tried on. test_behaviours.py puts all of them through the same.

A bench for another adapter is one more entry in BENCHES, at the end. An engine that runs already gets one too, if
ENGINE_UNDER_TEST names it (docs/engines.md, "Tried for real"); without that there is none.
"""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from aiohttp import web

from benchmarks import tiny_model
from server.clock import SystemClock
from server.embedded.llama import Llama
from server.engines.kinds import Defaults, load_kinds, read_spec
from server.engines.metrics import read_running
from server.engines.ollama import Ollama
from server.engines.openai_compatible import OpenAICompatible
from server.engines.protocol import Engine
from server.engines.tgi import Tgi
from server.messages import Surface
from tests.stand_ins import ollama_engine, openai_engine, tgi_engine

SILENCE_MS_MAX = 60_000
POLL_MS = 20
EVENT_STREAM = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHAT: Surface = "chat.completions"
TEXT: Surface = "completions"


@dataclass
class Stand:
    """A running engine, and its adapter.

    Attributes:
        too_much: fields with which the engine refuses a request; none where it is not known what that takes.
        hold: lets the answers that follow stop after their first token, or be very long.
        stopped: returns when the engine has stopped the answer whose client went.
        doom: told before a request whose answer shall not come to its end,
        die: and after its first token: the engine ends.
        fill: lets the engine take no more; None where it lets requests wait.
    """

    engine: Engine
    model: str
    too_much: Mapping[str, Any]
    hold: Callable[[], None]
    stopped: Callable[[], Awaitable[None]]
    doom: Callable[[], None]
    die: Callable[[], Awaitable[None]]
    fill: Callable[[], None] | None = None


@dataclass(frozen=True)
class Bench:
    """One adapter.

    Attributes:
        running: starts an engine; gets a folder with a short path.
        adapter: for any URL that ends in `/v1`, and how long it may be silent.
        paths: where the adapter asks for an answer, by surface.
        begun: how a stream of this engine begins.
        event: bytes as one event of it.
        is_given: it runs elsewhere, so nobody can order it to die or to be full, and its bytes are another bench's.
    """

    name: str
    running: Callable[[Path], AbstractAsyncContextManager[Stand]]
    adapter: Callable[[str, int], Engine]
    paths: Mapping[Surface, str]
    can_be_full: bool = True
    begun: bytes = EVENT_STREAM
    event: Callable[[bytes], bytes] = lambda message: b"data: " + message + b"\n\n"
    is_given: bool = False


def _nothing() -> None:
    """A real engine that is slow needs no hold."""


def _openai(url: str, silence_ms_max: int) -> OpenAICompatible:
    return OpenAICompatible(url, slots=2, silence_ms_max=silence_ms_max)


def _tgi(url: str, silence_ms_max: int) -> Tgi:
    return Tgi(url, slots=2, silence_ms_max=silence_ms_max)


async def _idle(llama: Llama) -> None:
    """Until llama.cpp says that no slot works. At once, or it would have come to the end."""
    clock = SystemClock()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {llama.api_key}"}) as http:
        while True:
            async with http.get(f"{llama.base_url.removesuffix('/v1')}/slots") as response:
                if not any(slot["is_processing"] for slot in await response.json()):
                    return
            await clock.sleep_ms(POLL_MS)


async def _killed(llama: Llama) -> None:
    """It dies at once; asked to end it might come to the end of its answer first."""
    assert llama._child.pid is not None
    for program in psutil.Process(llama._child.pid).children(recursive=True):
        program.kill()
    await llama.exited()


@asynccontextmanager
async def _llama_running(folder: Path) -> AsyncIterator[Stand]:
    """llama.cpp with the demonstration model, deep enough to take seconds for an answer."""
    path = folder / "bench.gguf"
    tiny_model.build(path, layers=24)
    llama = Llama(path, name="bench", slots=2, context_tokens=2048, data_dir=folder, clock=SystemClock())
    await llama.start()
    engine = OpenAICompatible(llama.base_url, slots=1, silence_ms_max=SILENCE_MS_MAX, api_key=llama.api_key)
    too_much = {"prompt": "word " * 20_000, "messages": [{"role": "user", "content": "word " * 20_000}]}
    try:
        yield Stand(
            engine,
            "bench",
            too_much,
            hold=_nothing,
            stopped=lambda: _idle(llama),
            doom=_nothing,
            die=lambda: _killed(llama),
        )
    finally:
        await engine.close()
        await llama.stop()


class _OpenAIOrders:
    """What the stand-in for OpenAI-compatible engines is told."""

    def __init__(self) -> None:
        self.order = openai_engine.Order(behaviour=self._answer)
        self._is_full = self._is_doomed = False

    def hold(self) -> None:
        """Stop after the first token."""
        self.order.hold.clear()
        self.order.held_after = 1

    def doom(self) -> None:
        """The next answer will not come to its end."""
        self.hold()
        self._is_doomed = True

    def fill(self) -> None:
        """Take no more."""
        self._is_full = True

    async def die(self) -> None:
        """End what is held."""
        self.order.hold.set()

    async def stopped(self) -> None:
        """Until a client went."""
        await self.order.gone.wait()

    async def _answer(
        self, order: openai_engine.Order, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        if self._is_full:
            return web.json_response({"error": {"message": "Too many requests"}}, status=429)
        if (tokens := body["max_tokens"]) > 2048:
            return web.json_response({"error": openai_engine.too_many_tokens(tokens, 2048)}, status=400)
        response = await openai_engine.event_stream(request)
        is_chat = request.path.endswith("/chat/completions")
        for number in range(order.tokens):
            if number >= order.held_after:
                await order.hold.wait()
            if number and self._is_doomed:
                assert request.transport is not None
                request.transport.abort()
            await response.write((openai_engine.event if is_chat else self._text)({"content": f" word{number}"}))
        await response.write((openai_engine.event if is_chat else self._text)({}, "stop"))
        await response.write(openai_engine.usage_event({"prompt_tokens": 7, "completion_tokens": 3}))
        await response.write(b"data: [DONE]\n\n")
        return response

    @staticmethod
    def _text(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "text": delta.get("content", ""), "finish_reason": finish_reason}
        chunk = {"id": "cmpl-1", "object": "text_completion", "choices": [choice]}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"


@asynccontextmanager
async def _openai_running(_folder: Path) -> AsyncIterator[Stand]:
    told = _OpenAIOrders()
    async with openai_engine.serve(told.order) as url:
        engine = _openai(url, SILENCE_MS_MAX)
        try:
            yield Stand(
                engine,
                openai_engine.MODEL,
                {"max_tokens": 9999},
                hold=told.hold,
                stopped=told.stopped,
                doom=told.doom,
                die=told.die,
                fill=told.fill,
            )
        finally:
            await engine.close()


@asynccontextmanager
async def _tgi_running(_folder: Path) -> AsyncIterator[Stand]:
    order = tgi_engine.Order()

    def hold() -> None:
        order.hold.clear()
        order.held_after = 1

    def doom() -> None:
        hold()
        order.is_doomed = True

    def fill() -> None:
        order.is_full = True

    async def die() -> None:
        order.hold.set()

    async def stopped() -> None:
        await order.gone.wait()

    async with tgi_engine.serve(order) as url:
        engine = _tgi(url, SILENCE_MS_MAX)
        too_much = {"max_tokens": 9999}
        try:
            yield Stand(engine, tgi_engine.MODEL, too_much, hold=hold, stopped=stopped, doom=doom, die=die, fill=fill)
        finally:
            await engine.close()


def _ollama(url: str, silence_ms_max: int) -> Ollama:
    return Ollama(url.removesuffix("/v1"), slots=2, silence_ms_max=silence_ms_max)


@asynccontextmanager
async def _ollama_running(_folder: Path) -> AsyncIterator[Stand]:
    told = ollama_engine.Ollama([ollama_engine.Model("tiny:latest")])

    def doom() -> None:
        told.hold.clear()
        told.dies = True

    def fill() -> None:
        told.is_full = True

    async def die() -> None:
        told.hold.set()

    async def stopped() -> None:
        await told.gone.wait()

    async with ollama_engine.serve(told) as url:
        engine = _ollama(url, SILENCE_MS_MAX)
        too_much = {"prompt": "word " * 20_000, "messages": [{"role": "user", "content": "word " * 20_000}]}
        try:
            yield Stand(
                engine,
                "tiny:latest",
                too_much,
                hold=told.hold.clear,
                stopped=stopped,
                doom=doom,
                die=die,
                fill=fill,
            )
        finally:
            await engine.close()


def _given(url: str, silence_ms_max: int) -> Engine:
    spec = read_spec(url)
    return load_kinds()[spec.kind](spec, Defaults(slots=2, silence_ms_max=silence_ms_max))


@asynccontextmanager
async def _given_running(_folder: Path) -> AsyncIterator[Stand]:
    """What ENGINE_UNDER_TEST names, with the first of its models that MODEL_UNDER_TEST does not rule out."""
    engine, clock = _given(os.environ[GIVEN], SILENCE_MS_MAX), SystemClock()
    wanted = os.environ.get("MODEL_UNDER_TEST")
    model = next(each for each in await engine.probe() if wanted in (None, each.id))
    words = "word " * (2 * (model.context_tokens or 0))
    too_much = {"prompt": words, "messages": [{"role": "user", "content": words}]} if words else {}

    async def stopped() -> None:
        while (page := await engine.metrics()) is not None and (running := read_running(page)) is not None:
            if not running:
                return
            await clock.sleep_ms(POLL_MS)
        pytest.skip("The engine does not tell what runs on it.")

    async def die() -> None:
        raise NotImplementedError  # see is_given

    try:
        yield Stand(engine, model.id, too_much, hold=_nothing, stopped=stopped, doom=_nothing, die=die)
    finally:
        await engine.close()


GIVEN = "ENGINE_UNDER_TEST"
OPENAI_PATHS: Mapping[Surface, str] = {CHAT: "/v1/chat/completions", TEXT: "/v1/completions"}
TGI_PATHS: Mapping[Surface, str] = {CHAT: "/v1/chat/completions", TEXT: "/generate_stream"}

BENCHES = (
    Bench("llama.cpp", _llama_running, _openai, OPENAI_PATHS, can_be_full=False),
    Bench("openai stand-in", _openai_running, _openai, OPENAI_PATHS),
    Bench("tgi stand-in", _tgi_running, _tgi, TGI_PATHS),
    Bench("ollama stand-in", _ollama_running, _ollama, OPENAI_PATHS),
    *([Bench("given", _given_running, _given, {}, can_be_full=False, is_given=True)] if GIVEN in os.environ else []),
)
