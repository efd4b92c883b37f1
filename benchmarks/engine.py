"""A simulated engine for benchmarks: OpenAI's event stream at a steady pace, at next to no cost of its own.

    python -m benchmarks.engine PORT [SLOTS]

With SLOTS it answers so many requests at a time, and the others wait inside of it, first come, first served, as engines
do. A client that leaves gives its slot back at once. It goes on with the beginning of an answer, in vLLM's words.
"""

import asyncio
import sys

import msgspec
import uvloop
from aiohttp import web

from server.clock import SystemClock

MODEL = "simulated"
SLOTS_MAX = 10_000
# Of a word of the prompt: 5000 a second.
READ_US = 200
SLOTS_ARGUMENT = 2


def event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    """One chunk."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    chunk = {"id": "chatcmpl-simulated", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return b"data: " + msgspec.json.encode(chunk | {"choices": [choice]}) + b"\n\n"


FIRST = event({"role": "assistant", "content": ""})
TOKEN = event({"content": " token"})
LAST = event({}, "stop")


def ending(tokens: int) -> bytes:
    """The usage chunk and the end."""
    usage = {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}
    return b"data: " + msgspec.json.encode({"choices": [], "usage": usage}) + b"\n\ndata: [DONE]\n\n"


SLOTS: web.AppKey[asyncio.Semaphore] = web.AppKey("slots", asyncio.Semaphore)


async def complete(request: web.Request) -> web.StreamResponse:
    """`max_tokens` tokens, `pace_ms` apart; all at once where that is 0."""
    body = msgspec.json.decode(await request.read())
    tokens, pace_ms = body["max_tokens"], body.get("pace_ms", 20)
    clock = SystemClock()
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    async with request.app[SLOTS]:
        words = sum(len(message["content"].split()) for message in body["messages"])
        await clock.sleep_ms(words * READ_US // 1000)
        await response.write(FIRST)
        for _ in range(tokens):
            await response.write(TOKEN)
            if pace_ms:
                await clock.sleep_ms(pace_ms)
    await response.write(LAST + ending(tokens))
    return response


async def models(_request: web.Request) -> web.Response:
    """The one model."""
    return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})


async def serve(port: int, slots: int) -> None:
    """Until the process is ended."""
    app = web.Application()
    app[SLOTS] = asyncio.Semaphore(slots)
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > SLOTS_ARGUMENT else SLOTS_MAX))
