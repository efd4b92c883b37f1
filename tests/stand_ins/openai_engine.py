"""A stand-in for an OpenAI-compatible engine, for what a real one cannot be made to do on demand.

It speaks the real wire format over a real socket (llama-server's events, byte for byte but for the ids) and obeys
orders: how many tokens, when to pause, how to fail. What it saw can be asked afterwards. Tests that need no
misbehaviour use llama.cpp.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

MODEL = "stand-in"

Behaviour = Callable[["Order", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


@dataclass
class Order:
    """What the next requests get.

    Attributes:
        model: which it serves.
        hold: tokens wait for it, after the first `held_after`; set by default.
        gone: set when a client hangs up before the end.
        tells_running: whether it has a page of metrics.
    """

    model: str = MODEL
    tokens: int = 3
    usage: dict[str, int] | None = field(default_factory=lambda: {"prompt_tokens": 7, "completion_tokens": 3})
    held_after: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    behaviour: Behaviour | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    running_max: int = 0
    tells_running: bool = False

    def __post_init__(self) -> None:
        self.hold.set()


def event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    """One chunk of a chat stream, as llama-server writes it."""
    chunk = {
        "choices": [{"finish_reason": finish_reason, "index": 0, "delta": delta}],
        "created": 1795410963,
        "id": "chatcmpl-stand-in",
        "model": MODEL,
        "object": "chat.completion.chunk",
    }
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def usage_event(usage: dict[str, int]) -> bytes:
    """The chunk that reports usage."""
    return b"data: " + json.dumps({"choices": [], "usage": usage, "model": MODEL}).encode() + b"\n\n"


def saying(text: str) -> Behaviour:
    """Says this, word by word, and stops; held like any answer."""

    async def answer(order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
        response = await event_stream(request)
        await response.write(event({"role": "assistant", "content": None}))
        words = text.split(" ")
        for number, word in enumerate(words):
            if number >= order.held_after:
                await order.hold.wait()
            await response.write(event({"content": word if number == 0 else f" {word}"}))
        await response.write(event({}, "stop"))
        await response.write(usage_event({"prompt_tokens": 7, "completion_tokens": len(words)}))
        order.running.discard(request.headers["X-Request-Id"])
        await response.write(b"data: [DONE]\n\n")
        return response

    return answer


def too_many_tokens(asked: int, context: int) -> dict[str, Any]:
    """How vLLM 0.32 refuses an answer that is longer than its context."""
    message = (
        f"max_tokens={asked} cannot be greater than max_model_len={context}. Please request fewer output tokens. "
        f"(parameter=max_tokens, value={asked})"
    )
    return {"message": message, "type": "BadRequestError", "param": "max_tokens", "code": 400}


async def event_stream(request: web.Request) -> web.StreamResponse:
    """An event stream, begun."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


async def _stream(order: Order, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = await event_stream(request)
    await response.write(event({"role": "assistant", "content": None}))
    for number in range(order.tokens):
        if number >= order.held_after:
            await order.hold.wait()
        await response.write(event({"content": f" word{number}"}))
    await response.write(event({}, "stop"))
    if order.usage is not None and (body.get("stream_options") or {}).get("include_usage"):
        await response.write(usage_event(order.usage))
    # Like llama-server: the slot is free before the end is told.
    order.running.discard(request.headers["X-Request-Id"])
    await response.write(b"data: [DONE]\n\n")
    return response


async def _whole(order: Order, _request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    await order.hold.wait()
    text = "".join(f" word{number}" for number in range(order.tokens))
    message = {"role": "assistant", "content": text}
    return web.json_response(
        {
            "choices": [{"finish_reason": "stop", "index": 0, "message": message}],
            "id": "chatcmpl-stand-in",
            "object": "chat.completion",
            "created": 1795410963,
            "model": MODEL,
            "usage": order.usage,
        }
    )


async def _embed(_request: web.Request) -> web.Response:
    vector = {"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}
    return web.json_response(
        {"object": "list", "model": MODEL, "data": [vector], "usage": {"prompt_tokens": 2, "total_tokens": 2}}
    )


@asynccontextmanager
async def serve(order: Order, port: int = 0) -> AsyncIterator[str]:
    """Run a stand-in, on a free port unless one is named; gives its base URL."""

    async def complete(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        order.seen.append(body)
        order.headers.append(request.headers.copy())
        order.running.add(request.headers["X-Request-Id"])
        order.running_max = max(len(order.running), order.running_max)
        order.began.set()
        behaviour = order.behaviour or (_stream if body.get("stream") else _whole)
        try:
            return await behaviour(order, request, body)
        except (asyncio.CancelledError, ConnectionError):
            order.gone.set()
            raise
        finally:
            order.running.discard(request.headers["X-Request-Id"])

    async def models(_request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": order.model, "object": "model"}]})

    async def metrics(_request: web.Request) -> web.Response:
        if not order.tells_running:
            raise web.HTTPNotFound
        return web.Response(text=f"llamacpp:requests_processing {len(order.running)}\n")

    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_post("/v1/completions", complete)
    app.router.add_post("/v1/embeddings", _embed)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}/v1"
    finally:
        order.hold.set()
        await runner.cleanup()
