"""A stand-in for text-generation-inference, for want of a GPU that it runs on.

It speaks TGI's wire format over a real socket, as of 3.3.7 (github.com/huggingface/text-generation-inference at
db931fc): routes and headers from router/src/server.rs, fields and their order from router/src/lib.rs, chunks of a
conversation from router/src/chat.rs, sentences and kinds of errors from router/src/infer/mod.rs and validation.rs,
frames of events as axum 0.7.9 writes them. Like TGI it answers a stream with 200 before it knows whether it can be
served: then the first event is the error. It obeys orders like the other stand-in (openai_engine.py).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from server.clock import SystemClock

MODEL = "owner/stand-in"
VERSION = "3.3.7"
INPUT_TOKENS = 7
TOKENS_TOTAL_MAX = 4096
# Sent while nothing else is (axum's KeepAlive).
COMMENT = b":\n\n"
EOS = {"id": 2, "text": "</s>", "logprob": -0.25, "special": True}
INFO: Mapping[str, Any] = {
    "model_id": MODEL,
    "model_sha": "e985a63cdc139290c5f700ff1929f0b5942cced2",
    "model_pipeline_tag": "text-generation",
    "max_concurrent_requests": 128,
    "max_best_of": 2,
    "max_stop_sequences": 4,
    "max_input_tokens": 4095,
    "max_total_tokens": TOKENS_TOTAL_MAX,
    "validation_workers": 2,
    "max_client_batch_size": 4,
    "router": "text-generation-router",
    "version": VERSION,
    "sha": None,
    "docker_label": None,
}
METRICS = """# TYPE tgi_queue_size gauge
tgi_queue_size 3

# TYPE tgi_batch_max_total_tokens gauge
tgi_batch_max_total_tokens 65536

"""

Behaviour = Callable[["Order", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


@dataclass
class Order:
    """What the next requests get.

    Attributes:
        texts: of the tokens, if they shall be others than ` word0`, ` word1`.
        hold: tokens wait for it, after the first `held_after`; set by default.
        gone: set when a client hangs up before the end.
        is_doomed: TGI ends after the first token, once `hold` is set.
        is_full: as many requests run as TGI takes.
        calls: the arguments of a tool call, in pieces, instead of a text.
    """

    tokens: int = 3
    texts: list[str] | None = None
    held_after: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    is_full: bool = False
    is_doomed: bool = False
    calls: list[str] | None = None
    behaviour: Behaviour | None = None
    info: dict[str, Any] = field(default_factory=lambda: dict(INFO))
    metrics: str = METRICS
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hold.set()

    def words(self) -> list[str]:
        """The texts of the tokens."""
        return self.texts or [f" word{number}" for number in range(self.tokens)]


def event(message: object) -> bytes:
    """An event as axum's `json_data` writes it, with serde's JSON."""
    return b"data: " + json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


async def pause() -> None:
    """A little while, as between two comments; TGI's are 15 s apart."""
    await SystemClock().sleep_ms(20)


async def event_stream(request: web.Request) -> web.StreamResponse:
    """An event stream, begun."""
    headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no", "x-compute-type": "gpu+optimized"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    return response


def _fault(order: Order, parameters: dict[str, Any]) -> tuple[int, str, str] | None:
    """Status, sentence and kind, where TGI would not serve the request."""
    if order.is_full:
        return 429, "Model is overloaded", "overloaded"
    wrong = ""
    limit = parameters.get("max_new_tokens")
    if limit is not None and limit + INPUT_TOKENS > TOKENS_TOTAL_MAX:
        wrong = (
            f"`inputs` tokens + `max_new_tokens` must be <= {TOKENS_TOTAL_MAX}. "
            f"Given: {INPUT_TOKENS} `inputs` tokens and {limit} `max_new_tokens`"
        )
    elif (top_p := parameters.get("top_p")) is not None and not 0 < top_p < 1:
        wrong = "`top_p` must be > 0.0 and < 1.0"
    elif parameters.get("temperature", 1) <= 0:
        wrong = "`temperature` must be strictly positive"
    return (422, f"Input validation error: {wrong}", "validation") if wrong else None


def _tokens(order: Order, limit: int | None) -> list[tuple[dict[str, Any], str | None]]:
    """The tokens of an answer, and with the last one why it ended."""
    told: list[tuple[dict[str, Any], str | None]] = [
        ({"id": 100 + number, "text": text, "logprob": -0.5, "special": False}, None)
        for number, text in enumerate(order.words())
    ]
    if limit is not None and limit <= len(told):
        return [*told[: limit - 1], (told[limit - 1][0], "length")]
    return [*told, (EOS, "eos_token")]


async def _pass(order: Order, request: web.Request, number: int) -> None:
    """Wait until the token of this number may be told."""
    if number >= order.held_after:
        await order.hold.wait()
    if number and order.is_doomed:
        assert request.transport is not None
        request.transport.abort()


async def generate_stream(order: Order, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """POST /generate_stream."""
    parameters = body.get("parameters") or {}
    response = await event_stream(request)
    if (fault := _fault(order, parameters)) is not None:
        await response.write(event({"error": fault[1], "error_type": fault[2]}))
        return response
    tokens = _tokens(order, parameters.get("max_new_tokens"))
    text = "".join(token["text"] for token, _ in tokens if not token["special"])
    for index, (token, reason) in enumerate(tokens, 1):
        await _pass(order, request, index - 1)
        told: dict[str, Any] = {"index": index, "token": token}
        if parameters.get("top_n_tokens"):
            told["top_tokens"] = [token]
        told |= {"generated_text": None if reason is None else text, "details": None}
        if reason is not None and parameters.get("details"):
            told["details"] = {
                "finish_reason": reason,
                "generated_tokens": len(tokens),
                "seed": parameters.get("seed"),
                "input_length": INPUT_TOKENS,
            }
        await response.write(event(told))
    return response


def chat_chunk(delta: dict[str, Any] | None, reason: str | None = None, usage: object = None) -> bytes:
    """A chunk of a conversation."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]
    return event(
        {
            "object": "chat.completion.chunk",
            "id": "",
            "created": 1795410963,
            "model": MODEL,
            "system_fingerprint": f"{VERSION}-native",
            "choices": choices,
            "usage": usage,
        }
    )


def _call(name: str | None, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"index": 0, "id": "0", "type": "function", "function": function}]}


async def chat(order: Order, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    if not body.get("stream"):
        return _whole_chat(order, body)
    response = await event_stream(request)
    parameters = {"max_new_tokens": body.get("max_tokens"), "top_p": body.get("top_p")}
    if (fault := _fault(order, parameters)) is not None:
        await response.write(event({"error": {"message": fault[1], "http_status_code": 422}}))
        await response.write(DONE)
        return response
    tokens = _tokens(order, body.get("max_tokens"))
    if order.calls is not None:
        # What ends the call comes as no chunk, and neither does the reason (ChatState::push, Buffering).
        for number, piece in enumerate(order.calls):
            await response.write(chat_chunk(_call(None if number else "get_weather", piece)))
        tokens = []
    for index, (token, reason) in enumerate(tokens):
        await _pass(order, request, index)
        content = "" if token["special"] else token["text"]
        told = "stop" if reason == "eos_token" else reason
        await response.write(chat_chunk({"role": "assistant", "content": content}, told))
    if (body.get("stream_options") or {}).get("include_usage"):
        await response.write(chat_chunk(None, usage=_usage(len(tokens or order.calls or ()))))
    await response.write(DONE)
    return response


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": INPUT_TOKENS, "completion_tokens": tokens, "total_tokens": INPUT_TOKENS + tokens}


def _whole_chat(order: Order, body: dict[str, Any]) -> web.StreamResponse:
    if (fault := _fault(order, {"top_p": body.get("top_p")})) is not None:
        return web.json_response({"error": fault[1], "error_type": fault[2]}, status=fault[0])
    message = {"role": "assistant", "content": "".join(order.words())}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return web.json_response(
        {
            "object": "chat.completion",
            "id": "",
            "created": 1795410963,
            "model": MODEL,
            "system_fingerprint": f"{VERSION}-native",
            "choices": [choice],
            "usage": _usage(len(order.words()) + 1),
        }
    )


def _misshapen(path: str, body: dict[str, Any]) -> str:
    """What serde would say of a body that it cannot read; the fields that clients get wrong."""
    if path == "/v1/chat/completions" and isinstance(body.get("stop"), str):
        return 'stop: invalid type: string "…", expected a sequence'
    grammar = body.get("response_format")
    if isinstance(grammar, dict) and "value" not in grammar:
        return "response_format: missing field `value`"
    names = [name for name in ("stream", "stream_options") if name in body and body[name] is None]
    return f"{names[0]}: invalid type: null" if names else ""


@asynccontextmanager
async def serve(order: Order) -> AsyncIterator[str]:
    """Run a stand-in; gives its address."""

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        order.seen.append((request.path, body))
        order.headers.append(request.headers.copy())
        order.began.set()
        if wrong := _misshapen(request.path, body):
            sentence = f"Failed to deserialize the JSON body into the target type: {wrong} at line 1 column 99"
            return web.Response(status=422, text=sentence)
        behaviour = order.behaviour or (generate_stream if request.path == "/generate_stream" else chat)
        try:
            return await behaviour(order, request, body)
        except (asyncio.CancelledError, ConnectionError):
            order.gone.set()
            raise

    async def info(_request: web.Request) -> web.Response:
        return web.json_response(order.info)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(text=order.metrics)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/generate_stream", answer)
    app.router.add_post("/v1/chat/completions", answer)
    app.router.add_get("/info", info)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        order.hold.set()
        await runner.cleanup()
