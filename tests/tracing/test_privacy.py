"""What people write is in no trace, wherever they write it: the bytes that a collector gets hold none of it."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx
from aiohttp import web
from hypothesis import HealthCheck, example, given
from hypothesis import settings as trying
from hypothesis import strategies as st
from msgspec.structs import replace

from server.settings import Settings
from tests.conftest import MakeBox
from tests.stand_ins import openai_engine
from tests.stand_ins.openai_engine import MODEL, Behaviour, Order, saying
from tests.stand_ins.otlp_collector import Collector
from tests.tracing.conftest import Traced, only

# In every text that is sent, and in whatever an engine says of it.
MARK = "zqxcanary"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

texts = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=8).map(lambda text: f"{MARK}{text}")
words = st.text(st.sampled_from("abcXYZ019"), max_size=4).map(lambda text: MARK + text)
models = st.sampled_from([MODEL, MODEL, MODEL, "council", "council:self", f"council:{MARK}", MARK, f"{MARK}/{MODEL}"])

message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "developer"]), "content": texts},
    optional={"name": words, "tool_call_id": words},
)
tool = st.builds(
    lambda name, about: {
        "type": "function",
        "function": {"name": name, "description": about, "parameters": {"type": "object", "title": about}},
    },
    words,
    texts,
)
extras = {
    "tools": st.lists(tool, min_size=1, max_size=2),
    "metadata": st.dictionaries(words, texts, max_size=2),
    "user": words,
    "stop": st.lists(texts, max_size=2),
    "response_format": st.builds(
        lambda name: {"type": "json_schema", "json_schema": {"name": name, "schema": {"title": name}}}, words
    ),
    "stream": st.booleans(),
    "n": st.sampled_from([1, 2]),
    "max_tokens": st.integers(1, 20),
    "service_tier": st.sampled_from(["flex", MARK]),
    "reasoning_effort": words,
    "wirthforge": st.fixed_dictionaries({}, optional={"cloud": words, MARK: texts}),
    MARK: texts,
}
chats = st.fixed_dictionaries(
    {"model": models, "messages": st.lists(message, min_size=1, max_size=3)}, optional=extras
).map(lambda body: ("POST", "/v1/chat/completions", body))
completions = st.fixed_dictionaries({"model": models, "prompt": texts}, optional=extras).map(
    lambda body: ("POST", "/v1/completions", body)
)
embeddings = st.fixed_dictionaries({"model": models, "input": st.lists(texts, min_size=1, max_size=2)}).map(
    lambda body: ("POST", "/v1/embeddings", body)
)
others = st.sampled_from(
    [
        ("GET", f"/v1/models/{MARK}?q={MARK}", None),
        ("GET", f"/{MARK}/of/nothing", None),
        ("PROPFIND", f"/v1/models?{MARK}", None),
        ("POST", "/api/login", {"name": MARK, "password": MARK}),
        ("POST", f"/v1/chat/completions?{MARK}={MARK}", MARK),
        ("POST", "/generate", {"inputs": MARK, "parameters": {"stop": [MARK]}}),
        ("GET", f"/api/conversations?q={MARK}", None),
    ]
)
requests = st.one_of(chats, chats, completions, embeddings, others)
headers = st.fixed_dictionaries(
    {"user-agent": words, "traceparent": st.sampled_from([TRACEPARENT, f"{TRACEPARENT}-{MARK}", MARK])},
    optional={
        "tracestate": words.map(lambda word: f"{word.lower()}={word}"),
        "baggage": words.map(lambda word: f"{word}={word}"),
        "referer": words.map(lambda word: f"https://{word}.example/{word}"),
        "cookie": words.map(lambda word: f"{word}={word}"),
        "host": words.map(lambda word: f"{word}.example"),
        "x-request-id": words,
        "x-forwarded-for": words,
        "x-forwarded-host": words,
        "x-forwarded-proto": words,
        "x-wirthforge-cloud-consent": words,
        "openai-organization": words,
        "authorization": words.map(lambda word: f"Bearer {word}"),
        MARK: words,
    },
)


async def quoting(_order: Order, _request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Refuses, and says what."""
    return web.json_response({"error": {"message": json.dumps(body), "code": MARK, "type": MARK}}, status=400)


async def failing(_order: Order, _request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Fails, and says over what."""
    return web.json_response({"error": json.dumps(body)}, status=500, headers={MARK: MARK}, reason=MARK)


async def ending(_order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    """Answers, and ends for a reason of its own; its ids and names are words as well."""
    response = await openai_engine.event_stream(request)
    for delta, reason in (({"content": MARK}, None), ({}, MARK)):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        told = {"id": MARK, "model": MARK, "system_fingerprint": MARK, "choices": [choice]}
        await response.write(b"data: " + json.dumps(told).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    return response


async def breaking(_order: Order, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Begins to answer, and breaks off with an error."""
    response = await openai_engine.event_stream(request)
    await response.write(openai_engine.event({"content": MARK}))
    await response.write(b"data: " + json.dumps({"error": {"message": json.dumps(body)}}).encode() + b"\n\n")
    return response


BEHAVIOURS: dict[str, Behaviour | None] = {
    "says": saying(f"{MARK} and {MARK}"),
    "quotes": quoting,
    "fails": failing,
    "ends": ending,
    "breaks": breaking,
}
TOOLED = ("POST", "/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": MARK}]})


async def send(traced: Traced, request: tuple[str, str, Any], headers: Mapping[str, str]) -> httpx.Response:
    """Send as ann, unless the headers say otherwise."""
    method, path, body = request
    told = {**traced.ann.bearer, **headers}
    told = {name: value for name, value in told.items() if name != "Authorization" or "authorization" not in headers}
    async with traced.box.http(headers=told) as client:
        content = None if body is None else json.dumps(body).encode()
        return await client.request(method, path, content=content)


async def until_traced(traced: Traced, answer: httpx.Response) -> None:
    """Wait for the server's span of the request, which is the last of its trace."""
    request_id = answer.headers["x-request-id"]
    await traced.collector.until(
        lambda: any(
            span.kind == "server" and span.attributes.get("wirthforge.request.id") == request_id
            for span in traced.collector.spans
        )
    )


async def test_nothing_that_anybody_writes_is_in_a_trace(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order, collector: Collector
) -> None:
    """Whatever is in its body, headers, path and query, and whatever its engine makes of that."""
    box = await make_box(replace(settings, engines=(f"lab={engine_url}",)))
    traced = Traced(box, await box.person(f"{MARK}-ann"), order, collector)
    _, _, secret = traced.ann.key.rpartition("_")
    traces = 0

    async def check(request: tuple[str, str, Any], headers: Mapping[str, str], behaviour: str) -> None:
        nonlocal traces
        order.behaviour = BEHAVIOURS[behaviour]
        collector.received.clear()
        answer = await send(traced, request, headers)
        await until_traced(traced, answer)
        told = b"".join(collector.received)
        assert told
        assert MARK.encode() not in told.lower()
        assert secret.encode() not in told
        assert str(traced.ann.user.id).encode() not in told
        traces += 1

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(_whatever, lambda *case: asyncio.run_coroutine_threadsafe(check(*case), loop).result(30))
    assert traces >= 40
    assert MARK in json.dumps(order.seen), "the engine had it all"


def _whatever(check: Any) -> None:
    """Hypothesis' examples, each by `check`."""

    @trying(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @example(TOOLED, {"traceparent": TRACEPARENT, "tracestate": f"{MARK}={MARK}"}, "says")
    @example(TOOLED, {"host": f"{MARK}.example", "x-forwarded-proto": MARK}, "quotes")
    @example(TOOLED, {}, "fails")
    @example(TOOLED, {}, "ends")
    @example(TOOLED, {}, "breaks")
    @given(requests, headers, st.sampled_from(sorted(BEHAVIOURS)))
    def whatever(request: tuple[str, str, Any], headers: Mapping[str, str], behaviour: str) -> None:
        check(request, headers, behaviour)

    whatever()


async def test_a_reason_of_an_engines_own_is_other(traced: Traced) -> None:
    """Finish reasons are OpenAI's words, or `other`."""
    traced.order.behaviour = ending
    answer = await send(traced, TOOLED, {})
    assert answer.status_code == 200
    asked = only(await traced.collector.trace(count=3), f"chat {MODEL}")
    assert asked.attributes["gen_ai.response.finish_reasons"] == ["other"]
    assert asked.attributes["gen_ai.response.model"] == MODEL
