"""Streams that do not end as they should: clients that leave, engines that fail, servers that are away."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web
from msgspec.structs import replace

from quotas.ledger import Ledger
from server.embedded.llama import Llama
from server.settings import Settings
from tests.boxes import Box
from tests.conftest import MakeBox, adapter
from tests.stand_ins.openai_engine import MODEL, Order, event, event_stream, serve

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}


async def test_a_client_that_leaves_stops_the_engine(box: Box, order: Order) -> None:
    """Closing the connection in mid-stream reaches the engine at once, and what was streamed is settled."""
    ann = await box.person("ann")
    order.tokens, order.held_after = 100, 5
    order.hold.clear()
    async with (
        box.http(headers=ann.bearer) as client,
        client.stream("POST", "/v1/chat/completions", json=CHAT) as response,
    ):
        lines = response.aiter_lines()
        async for line in lines:
            if "word4" in line:
                break
    async with asyncio.timeout(1):
        await order.gone.wait()
    (row,) = await box.usage(1)
    assert (row.outcome, row.output_tokens) == ("cancelled", 5)


async def test_a_client_that_leaves_before_the_first_token_stops_the_engine(box: Box, order: Order) -> None:
    """Also without a byte of answer, streamed or not, the engine is let go."""
    ann = await box.person("ann")
    order.hold.clear()
    for is_stream in (True, False):
        order.began.clear()
        order.gone.clear()
        async with box.http(headers=ann.bearer) as client:
            asking = asyncio.create_task(client.post("/v1/chat/completions", json={**CHAT, "stream": is_stream}))
            await order.began.wait()
            asking.cancel()
            await asyncio.wait([asking])
        async with asyncio.timeout(1):
            await order.gone.wait()
    rows = await box.usage(2)
    assert [(row.outcome, row.output_tokens) for row in rows] == [("cancelled", 0)] * 2


async def test_a_client_that_leaves_the_queue_uses_nothing(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order, ledger: Ledger
) -> None:
    """Who goes while waiting is forgotten: no row, no slot, and the next one is served."""
    box = await make_box(replace(settings, engines=(engine_url,), engine_slots=1))
    ann = await box.person("ann")
    order.hold.clear()
    async with box.http(headers=ann.bearer) as client:
        first = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
        await order.began.wait()
        second = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
        engine = engine_url.split("/")[2]
        while await ledger.load(engine) != (1, 1):
            await box.clock.sleep_ms(10)
        second.cancel()
        await asyncio.wait([second])
        while await ledger.load(engine) != (1, 0):
            await box.clock.sleep_ms(10)
        order.hold.set()
        assert (await first).status_code == 200
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
    rows = await box.usage(2)
    assert [row.outcome for row in rows] == ["completed", "completed"]
    assert len(order.seen) == 2


async def test_no_more_requests_run_than_there_are_slots(
    box: Box, order: Order, engine_url: str, ledger: Ledger
) -> None:
    """Forty requests at once: the engine never sees more than its four."""
    ann = await box.person("ann")
    order.hold.clear()
    async with box.http(headers=ann.bearer, limits=httpx.Limits(max_connections=40)) as client:
        asking = [asyncio.create_task(client.post("/v1/chat/completions", json=CHAT)) for _ in range(40)]
        while await ledger.load(engine_url.split("/")[2]) != (4, 36):
            await box.clock.sleep_ms(10)
        order.hold.set()
        answers = await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}
    assert order.running_max == 4
    assert len(await box.usage(40)) == 40


async def _breaks(_order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    response = await event_stream(request)
    await response.write(event({"content": " half"}))
    assert request.transport is not None
    request.transport.abort()
    return response


async def _reports_error(_order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    response = await event_stream(request)
    await response.write(event({"content": " half"}))
    await response.write(b'data: {"error":{"message":"CUDA out of memory: secret-prompt","code":500}}\n\n')
    return response


async def _ends_early(_order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    response = await event_stream(request)
    await response.write(event({"content": " half"}))
    await response.write_eof()
    return response


@pytest.mark.parametrize("behaviour", [_breaks, _reports_error, _ends_early])
async def test_an_engine_that_breaks_in_mid_stream_is_told_in_the_stream(
    box: Box, order: Order, behaviour: Any
) -> None:
    """The client keeps what came and gets OpenAI's error object, which its library raises; the row says failed."""
    ann = await box.person("ann")
    order.behaviour = behaviour
    texts: list[str | None] = []

    async def read() -> None:
        async for chunk in await client.chat.completions.create(**CHAT):
            texts.append(chunk.choices[0].delta.content)  # noqa: PERF401 (what came before the error counts)

    async with box.openai(ann) as client:
        with pytest.raises(openai.APIError) as caught:
            await read()
    assert texts == [" half"]
    assert "secret-prompt" not in str(caught.value)
    (row,) = await box.usage(1)
    assert (row.outcome, row.output_tokens) == ("failed", 1)
    order.behaviour = None
    async with box.openai(ann) as client:
        assert (await client.chat.completions.create(**{**CHAT, "stream": False})).choices


async def _html(_order: Order, _request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    return web.Response(text="<html>Welcome to nginx</html>", content_type="text/html")


async def _rubbish_stream(_order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    response = await event_stream(request)
    await response.write(b"data: {half a thing\n\n")
    return response


async def _crash(_order: Order, _request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    return web.json_response({"error": {"message": "Traceback …", "code": 500}}, status=500)


async def _busy(_order: Order, _request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    return web.json_response({"error": "Model is overloaded", "error_type": "overloaded"}, status=429)


async def _silent(order: Order, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    await order.hold.wait()
    return await event_stream(request)


@pytest.mark.parametrize(
    ("behaviour", "is_stream", "status"),
    [
        (_html, True, 502),
        (_html, False, 502),
        (_rubbish_stream, True, 502),
        (_crash, True, 502),
        (_crash, False, 502),
        (_busy, True, 503),
        (_silent, True, 504),
        (_silent, False, 504),
    ],
)
async def test_an_engine_that_fails_before_the_first_token_is_an_http_error(
    box: Box, order: Order, behaviour: Any, is_stream: bool, status: int
) -> None:
    """As long as nothing was sent, the status tells the truth, and the box goes on."""
    ann = await box.person("ann")
    order.behaviour = behaviour
    order.hold.clear()
    async with box.http(headers=ann.bearer) as client:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": is_stream})
        assert answer.status_code == status
        error = answer.json()["error"]
        assert error["message"].startswith(("Engine ", "The engine "))
        assert error["type"] == "server_error"
        assert ("retry-after" in answer.headers) == (status == 503)
        order.behaviour = None
        order.hold.set()
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
    failed, completed = await box.usage(2)
    assert (failed.outcome, failed.input_tokens, failed.output_tokens) == ("failed", 0, 0)
    assert completed.outcome == "completed"


async def test_an_engine_that_is_down_is_named_and_comes_back(make_box: MakeBox, settings: Settings) -> None:
    """While no engine has ever answered nobody knows the models; one that went away is a 502."""
    order = Order()
    async with serve(order) as url:
        box = await make_box(replace(settings, engines=(url,)))
        ann = await box.person("ann")
    async with box.http(headers=ann.bearer) as client:
        gone = await client.post("/v1/chat/completions", json=CHAT)
        assert (gone.status_code, gone.json()["error"]["code"]) == (502, "engine_unreachable")
    unknown = await make_box(replace(settings, engines=("http://127.0.0.1:9/v1",)))
    async with unknown.http(headers=ann.bearer) as client:
        early = await client.post("/v1/chat/completions", json=CHAT)
        assert (early.status_code, early.json()["error"]["code"]) == (503, "no_engine")
        assert early.headers["retry-after"] == "3"


async def test_a_full_queue_is_told_with_a_time(
    make_box: MakeBox, settings: Settings, engine_url: str, order: Order, ledger: Ledger
) -> None:
    """When the queue has its full length the next request is refused at once, and uses nothing."""
    box = await make_box(replace(settings, engines=(engine_url,), engine_slots=1, queue_length_max=1))
    ann = await box.person("ann")
    order.hold.clear()
    async with box.http(headers=ann.bearer) as client:
        asking = [asyncio.create_task(client.post("/v1/chat/completions", json=CHAT)) for _ in range(2)]
        while await ledger.load(engine_url.split("/")[2]) != (1, 1):
            await box.clock.sleep_ms(10)
        refused = await client.post("/v1/chat/completions", json=CHAT)
        order.hold.set()
        assert [(await each).status_code for each in asking] == [200, 200]
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
    assert refused.headers["retry-after"] == "10"
    assert len(await box.usage(2)) == 2


async def test_ids_go_from_end_to_end(box: Box, order: Order) -> None:
    """The request id is in the answer, in the engine's headers and on the usage row."""
    ann = await box.person("ann")
    async with box.http(headers=ann.bearer) as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
    await box.usage(1)
    request_id = answer.headers["x-request-id"]
    assert order.headers[0]["X-Request-Id"] == request_id
    assert await box.usage_of(request_id) is not None


async def test_fields_that_would_break_the_house_are_dropped(box: Box, order: Order) -> None:
    """A client cannot choose its cache salt, slot or priority; unknown fields pass; usage is always asked for."""
    ann = await box.person("ann")
    extra = {"cache_salt": "x", "id_slot": 1, "cache_prompt": True, "priority": 9, "min_p": 0.1}
    async with box.http(headers=ann.bearer) as client:
        await client.post("/v1/chat/completions", json={**CHAT, **extra})
    (seen,) = order.seen
    assert seen["min_p"] == 0.1
    assert seen["stream_options"] == {"include_usage": True}
    assert not {"cache_salt", "id_slot", "cache_prompt", "priority"} & seen.keys()


@pytest.mark.parametrize("is_stream", [True, False])
async def test_llama_cpp_stops_when_its_client_leaves(make_box: MakeBox, slow_llama: Llama, is_stream: bool) -> None:
    """Seen from llama.cpp's side: the slot works while the client is there, and is idle soon after it left."""
    box = await make_box(engines=[adapter(slow_llama, name="slow")])
    ann = await box.person("ann")
    asked = {"model": "slow", "prompt": "The box", "max_tokens": 3000, "ignore_eos": True, "stream": is_stream}

    async def decoding() -> list[int]:
        """How many tokens each busy slot has made."""
        url = slow_llama.base_url.removesuffix("/v1") + "/slots"
        slots = await client.get(url, headers={"Authorization": f"Bearer {slow_llama.api_key}"})
        return [slot["next_token"][0]["n_decoded"] for slot in slots.json() if slot["is_processing"]]

    async with box.http(headers=ann.bearer) as client:
        asking = asyncio.create_task(client.post("/v1/completions", json=asked))
        while max(await decoding(), default=0) < 5 and not asking.done():
            await box.clock.sleep_ms(20)
        assert not asking.done()
        asking.cancel()
        left_ms = box.clock.monotonic_ms()
        while await decoding():
            await box.clock.sleep_ms(20)
        # Milliseconds by itself; the whole answer would take half a minute.
        assert box.clock.monotonic_ms() - left_ms < 15_000
    (row,) = await box.usage(1)
    assert row.outcome == "cancelled"
    assert 0 < row.output_tokens < 3_000
