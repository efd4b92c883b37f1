"""Traces of requests, as a collector gets them from the served app."""

import asyncio
from typing import Any

import httpx
import pytest
from aiohttp import web
from msgspec.structs import replace

from server import VERSION
from server.settings import Settings
from server.tracing.names import SCHEMA_URL
from tests.conftest import MakeBox
from tests.stand_ins import openai_engine
from tests.stand_ins.openai_engine import MODEL, Order
from tests.stand_ins.otlp_collector import Collector
from tests.tracing.conftest import Traced, only, tree

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
PATH = "/v1/chat/completions"
ROOT, ASKED = f"POST {PATH}", f"chat {MODEL}"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def ask(traced: Traced, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    """Ask as ann, and read to the end."""
    async with traced.box.http(headers={**traced.ann.bearer, **(headers or {})}) as client:
        return await client.post(PATH, json=CHAT | body)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_is_a_trace_of_three_spans(traced: Traced, stream: bool) -> None:
    """The request, its wait, and what the engine was asked; with kinds, names and counts of the conventions."""
    answer = await ask(traced, stream=stream, max_tokens=50, stream_options={"include_usage": True} if stream else None)
    assert answer.status_code == 200, answer.text
    spans = await traced.collector.trace(count=3)
    assert tree(spans) == {"": [ROOT], ROOT: ["queue", ASKED]}
    root, queue, asked = only(spans, ROOT), only(spans, "queue"), only(spans, ASKED)
    assert (root.kind, queue.kind, asked.kind) == ("server", "internal", "client")
    host, _, port = traced.box.url.removeprefix("http://").partition(":")
    assert root.attributes == {
        "http.request.method": "POST",
        "http.route": PATH,
        "http.response.status_code": 200,
        "url.scheme": "http",
        "server.address": host,
        "server.port": int(port),
        "wirthforge.request.id": answer.headers["x-request-id"],
    }
    assert queue.attributes == {"wirthforge.engine": "lab"}
    first_s = asked.attributes["gen_ai.response.time_to_first_chunk"]
    assert isinstance(first_s, float)
    assert 0 < first_s * 1e9 < asked.ended_ns - asked.began_ns
    assert asked.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.response.model": MODEL,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": first_s,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.output_tokens": 3,
        "wirthforge.engine": "lab",
        "wirthforge.outcome": "completed",
        "wirthforge.request.id": answer.headers["x-request-id"],
    }
    assert asked.events == ("wirthforge.first_token",)
    assert not any(span.is_error for span in spans)
    assert root.began_ns <= queue.began_ns <= queue.ended_ns <= asked.began_ns <= asked.ended_ns <= root.ended_ns


async def test_the_collector_learns_who_sends(traced: Traced) -> None:
    """The service, its version and instance; and which version of the conventions the names are of."""
    await ask(traced)
    await traced.collector.trace(count=3)
    told = traced.collector.resource
    assert told["service.name"] == "wirthforge"
    assert told["service.version"] == VERSION
    assert len(str(told["service.instance.id"])) == 36
    assert traced.collector.scope == ("wirthforge", VERSION, SCHEMA_URL)


async def test_the_engine_is_told_which_span_it_works_for(traced: Traced) -> None:
    """A `traceparent` of the span of its own request, and nothing else of a trace."""
    await ask(traced, headers={"tracestate": "vendor=1", "baggage": "a=b"})
    asked = only(await traced.collector.trace(count=3), ASKED)
    (headers,) = traced.order.headers
    assert headers["traceparent"].split("-")[:3] == ["00", asked.trace, asked.id]
    assert int(headers["traceparent"].split("-")[3], 16) & 1
    assert not {"tracestate", "baggage"} & {name.lower() for name in headers}


async def test_a_caller_says_what_it_is_a_part_of(traced: Traced) -> None:
    """`traceparent` is heard; `tracestate` is not, since it would go to the collector as it is."""
    await ask(traced, headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=said"})
    spans = await traced.collector.trace(count=3)
    root = only(spans, ROOT)
    assert (root.trace, root.parent) == (TRACE, PARENT)
    assert {span.state for span in spans} == {""}
    assert traced.order.headers[0]["traceparent"].split("-")[1] == TRACE


@pytest.mark.parametrize(
    "said",
    [
        "",
        "nonsense",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01, 00-{TRACE}-{PARENT}-01",
        "0" * 5_000,
    ],
)
async def test_what_is_no_traceparent_begins_a_trace_of_its_own(traced: Traced, said: str) -> None:
    """The request is answered as ever, and its trace has a new id."""
    assert (await ask(traced, headers={"traceparent": said})).status_code == 200
    spans = await traced.collector.trace(count=3)
    root = only(spans, ROOT)
    assert root.parent == ""
    assert root.trace != TRACE


async def test_two_traceparents_are_none(traced: Traced) -> None:
    """As W3C has it: whoever says two things is not believed."""
    headers = [*traced.ann.bearer.items(), *[("traceparent", f"00-{TRACE}-{PARENT}-01")] * 2]
    async with traced.box.http() as client:
        assert (await client.post(PATH, json=CHAT, headers=headers)).status_code == 200
    assert only(await traced.collector.trace(count=3), ROOT).parent == ""


async def test_a_share_of_nothing_traces_only_whom_the_caller_traces(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order, collector: Collector
) -> None:
    """Of 0 percent only requests come whose caller is traced itself; the engine hears in both cases what holds."""
    box = await make_box(replace(settings, engines=(engine_url,), traces_percent=0))
    traced = Traced(box, await box.person("ann"), order, collector)
    await ask(traced)
    await ask(traced, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    await ask(traced, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    spans = await collector.trace(count=3)
    assert len(spans) == len(collector.spans) == 3
    assert {span.trace for span in spans} == {TRACE}
    flags = [int(headers["traceparent"].split("-")[3], 16) & 1 for headers in order.headers]
    assert flags == [0, 0, 1]


async def test_a_caller_that_is_not_traced_is_not_traced_here(traced: Traced) -> None:
    """Its decision comes before the share, which is of all others."""
    await ask(traced, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    await ask(traced)
    await traced.collector.trace(count=3)
    assert len(traced.collector.spans) == 3
    assert TRACE not in {span.trace for span in traced.collector.spans}


async def test_a_request_to_nothing_has_no_path(traced: Traced) -> None:
    """Paths and methods that nobody knows are words of a caller: one span with no name but the method."""
    async with traced.box.http(headers=traced.ann.bearer) as client:
        assert (await client.get("/v1/models/my-secret-model")).status_code == 404
        (span,) = await traced.collector.trace(root="GET")
        assert span.name == "GET /v1/models/{model}"
        assert span.attributes["http.response.status_code"] == 404
        assert not span.is_error
        await client.request("PROPFIND", "/my-secret-path")
        (found,) = await traced.collector.trace(root="HTTP")
    assert found.name.split()[0] == "HTTP"
    assert found.attributes["http.request.method"] == "_OTHER"
    assert b"secret" not in b"".join(traced.collector.received)


async def test_nobody_reads_the_traces_of_probes(traced: Traced) -> None:
    """Health pages are asked every few seconds and are not traced; one span for each other request, and no more."""
    async with traced.box.http(headers=traced.ann.bearer) as client:
        for path in ("/health", "/healthz", "/readyz", "/metrics"):
            await client.get(path)
        await client.get("/v1/models")
    await traced.collector.trace(root="GET /v1/models")
    assert [span.name for span in traced.collector.spans] == ["GET /v1/models"]


async def test_completions_and_embeddings_are_called_by_their_operation(traced: Traced) -> None:
    """`text_completion` and `embeddings`, each with what it used."""
    async with traced.box.http(headers=traced.ann.bearer) as client:
        assert (await client.post("/v1/embeddings", json={"model": MODEL, "input": "text"})).status_code == 200
        embedded = only(await traced.collector.trace(root="embeddings", count=3), f"embeddings {MODEL}")
        await client.post("/v1/completions", json={"model": MODEL, "prompt": "text", "n": 2, "max_tokens": 3})
        spans = await traced.collector.trace(root="/v1/completions", count=3)
    assert embedded.attributes["gen_ai.operation.name"] == "embeddings"
    assert embedded.attributes["gen_ai.usage.input_tokens"] == 2
    assert embedded.attributes["gen_ai.request.stream"] is False
    completed = only(spans, f"text_completion {MODEL}")
    assert completed.attributes["gen_ai.operation.name"] == "text_completion"
    assert completed.attributes["gen_ai.request.choice.count"] == 2


async def test_a_wait_is_as_long_as_the_queue(traced: Traced) -> None:
    """Of a request that found no slot, the wait's span lasts until it had one."""
    traced.order.hold.clear()
    holding = [asyncio.create_task(ask(traced)) for _ in range(4)]
    async with asyncio.timeout(10):
        while len(traced.order.seen) < 4:
            await traced.box.clock.sleep_ms(10)
    late = asyncio.create_task(ask(traced))
    async with asyncio.timeout(10):
        while (await traced.box.ledger.load("lab"))[1] < 1:
            await traced.box.clock.sleep_ms(10)
    queued_us = traced.box.clock.monotonic_us()
    await ask(traced, model="unknown")
    waited_us = traced.box.clock.monotonic_us() - queued_us
    traced.order.hold.set()
    await asyncio.gather(late, *holding)
    await traced.collector.until(lambda: len(traced.collector.spans) == 16)
    waits = sorted(span.ended_ns - span.began_ns for span in traced.collector.spans if span.name == "queue")
    spans = [span for span in traced.collector.spans if span.attributes.get("wirthforge.request.id")]
    last = max((span for span in spans if span.name == ASKED), key=lambda span: span.began_ns)
    others = [span for span in spans if span.name == ASKED and span.id != last.id]
    assert len(waits) == 5
    assert last.began_ns >= min(span.ended_ns for span in others)
    root = next(span for span in spans if span.id == last.parent)
    assert root.attributes["wirthforge.request.id"] == late.result().headers["x-request-id"]
    assert waits[-1] >= waited_us * 1_000


async def failing(_order: Order, _request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    """An engine with a fault, which quotes what it was asked."""
    raise web.HTTPInternalServerError(text="Why is the sky blue?")


async def breaking(order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    """An engine that hangs up in the middle."""
    response = await openai_engine.event_stream(request)
    await response.write(openai_engine.event({"content": "word"}))
    order.running.clear()
    assert request.transport is not None
    request.transport.abort()
    return response


async def test_a_fault_of_the_engine_is_an_error_without_words(traced: Traced) -> None:
    """Its request and the caller's are errors, by code; what the engine said of it is nowhere."""
    traced.order.behaviour = failing
    answer = await ask(traced)
    assert answer.status_code == 502
    spans = await traced.collector.trace(count=3)
    root, asked = only(spans, ROOT), only(spans, ASKED)
    assert (asked.is_error, asked.attributes["error.type"]) == (True, "engine_failed")
    assert (root.is_error, root.attributes["error.type"]) == (True, "502")
    assert {span.message for span in spans} == {""}
    assert b"sky" not in b"".join(traced.collector.received)


async def test_an_engine_that_breaks_off_is_seen_by_its_span(traced: Traced) -> None:
    """The stream's status was 200 long before; the engine's span knows better, and has the token that came."""
    traced.order.behaviour = breaking
    answer = await ask(traced, stream=True)
    assert answer.status_code == 200
    spans = await traced.collector.trace(count=3)
    asked = only(spans, ASKED)
    assert asked.is_error
    assert asked.attributes["wirthforge.outcome"] == "failed"
    assert asked.attributes["gen_ai.usage.output_tokens"] == 1
    assert only(spans, ROOT).attributes["http.response.status_code"] == 200


async def test_another_engine_is_another_span(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order, collector: Collector
) -> None:
    """Where the first engine fails before it answers, both requests are there, and both waits."""
    broken = Order(behaviour=failing)
    async with openai_engine.serve(broken) as first_url:
        box = await make_box(replace(settings, engines=(f"first={first_url}", f"second={engine_url}")))
        traced = Traced(box, await box.person("ann"), order, collector)
        assert (await ask(traced)).status_code == 200
        spans = await collector.trace(count=5)
    asked = sorted((span for span in spans if span.name == ASKED), key=lambda span: span.began_ns)
    assert [span.attributes["wirthforge.engine"] for span in asked] == ["first", "second"]
    assert [span.is_error for span in asked] == [True, False]
    assert tree(spans)[ROOT] == ["queue", ASKED, "queue", ASKED]
    assert not only(spans, ROOT).is_error


async def test_a_client_that_leaves_is_no_error(traced: Traced) -> None:
    """All spans end, with what was counted so far, and the root says that its client left."""
    traced.order.held_after = 1
    traced.order.hold.clear()
    async with (
        traced.box.http(headers=traced.ann.bearer) as client,
        client.stream("POST", PATH, json=CHAT | {"stream": True}) as response,
    ):
        async for line in response.aiter_lines():
            if "word0" in line:
                break
    spans = await traced.collector.trace(count=3)
    root, asked = only(spans, ROOT), only(spans, ASKED)
    assert root.attributes["wirthforge.client_left"] is True
    assert asked.attributes["wirthforge.outcome"] == "cancelled"
    assert asked.attributes["gen_ai.usage.output_tokens"] == 1
    assert "error.type" not in {**root.attributes, **asked.attributes}
    assert not any(span.is_error for span in spans)


async def test_who_leaves_the_queue_leaves_a_wait(traced: Traced) -> None:
    """No engine was asked, and the wait has ended without an error."""
    traced.order.hold.clear()
    holding = [asyncio.create_task(ask(traced)) for _ in range(4)]
    async with asyncio.timeout(10):
        while len(traced.order.seen) < 4:
            await traced.box.clock.sleep_ms(10)
    waiting = asyncio.create_task(ask(traced))
    async with asyncio.timeout(10):
        while (await traced.box.ledger.load("lab"))[1] < 1:
            await traced.box.clock.sleep_ms(10)
    waiting.cancel()
    spans = await traced.collector.trace(count=2)
    assert tree(spans) == {"": [ROOT], ROOT: ["queue"]}
    assert not any(span.is_error for span in spans)
    traced.order.hold.set()
    await asyncio.gather(*holding)


async def test_a_refusal_is_a_wait_that_fails(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order, collector: Collector
) -> None:
    """429 by one's own limit is no error of the server's, 503 by a full queue is one; the wait says which."""
    box = await make_box(replace(settings, engines=(f"lab={engine_url}",), queue_length_max=1, engine_slots=1))
    traced = Traced(box, await box.person("ann"), order, collector)
    order.hold.clear()
    holding = asyncio.create_task(ask(traced))
    await order.began.wait()
    waiting = asyncio.create_task(ask(traced))
    async with asyncio.timeout(10):
        while (await box.ledger.load("lab"))[1] < 1:
            await box.clock.sleep_ms(10)
    full = await ask(traced)
    assert full.status_code == 503
    spans = await collector.trace(count=2)
    assert only(spans, "queue").attributes["error.type"] == full.json()["error"]["code"]
    assert only(spans, ROOT).attributes["error.type"] == "503"
    order.hold.set()
    await asyncio.gather(holding, waiting)
    await collector.until(lambda: len(collector.spans) == 8)
    await box.allow(traced.ann, requests_per_minute=1)
    await ask(traced)
    refused = await ask(traced)
    assert refused.status_code == 429, refused.text
    spans = await collector.trace(root=ROOT, count=2)
    assert only(spans, "queue").attributes["error.type"] == refused.json()["error"]["code"]
    assert only(spans, ROOT).attributes["http.response.status_code"] == 429
    assert not only(spans, ROOT).is_error


async def test_nobody_is_nobody_here_too(traced: Traced) -> None:
    """A request without a key is one span, with 401 and no more."""
    async with traced.box.http() as client:
        assert (await client.post(PATH, json=CHAT)).status_code == 401
    (root,) = await traced.collector.trace()
    assert root.attributes["http.response.status_code"] == 401
