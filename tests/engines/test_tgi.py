"""text-generation-inference's adapter: what TGI tells, how its words become OpenAI's, and what it refuses."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from server.engines.continuation import Record
from server.engines.protocol import Resumes
from server.engines.tgi import PREFILL_TOKENS_ASSUMED, Tgi
from server.engines.tgi_answers import Events, Faults
from server.engines.tgi_bodies import chat_body, generate_parameters
from server.errors import EngineFailed, EngineTimeout, InvalidRequest, NotFound, Unavailable, WirthforgeError
from server.messages import Piece, Written
from tests.engines.raw_engine import STREAM_BEGUN, reply, serve_raw
from tests.stand_ins import tgi_engine

CHAT: dict[str, Any] = {
    "model": tgi_engine.MODEL,
    "messages": [{"role": "user", "content": "secret-prompt"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}
TEXT: dict[str, Any] = {
    "model": tgi_engine.MODEL,
    "prompt": "secret-prompt",
    "stream": True,
    "stream_options": {"include_usage": True},
}


@pytest.fixture
def order() -> tgi_engine.Order:
    """What the stand-in does."""
    return tgi_engine.Order()


@pytest.fixture
async def tgi(order: tgi_engine.Order) -> AsyncIterator[Tgi]:
    """An adapter of a stand-in that was probed."""
    async with tgi_engine.serve(order) as url:
        engine = Tgi(url, slots=1, silence_ms_max=300, api_key="sk-of-this-engine")
        await engine.probe()
        yield engine
        await engine.close()


async def ask(engine: Tgi, body: dict[str, Any]) -> list[Any]:
    """The events of an answer, the last of which is its end mark."""
    surface: Any = "chat.completions" if "messages" in body else "completions"
    opened = await engine.open(surface, body, "id-of-this-request", "salt")
    try:
        events = b"".join([chunk async for chunk in opened.chunks()]).decode().split("\n\n")
    finally:
        opened.close()
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


async def test_it_learns_what_tgi_tells(tgi: Tgi) -> None:
    """The model, its context, one slot less than TGI takes, and the pool from its Prometheus page."""
    (model,) = await tgi.probe()
    assert (model.id, model.context_tokens) == (tgi_engine.MODEL, 4096)
    assert (tgi.slots, tgi.kv_tokens, tgi.prefill_chunk_tokens) == (127, 65536, PREFILL_TOKENS_ASSUMED)
    assert tgi.books_whole_answers
    assert tgi.kind == "tgi"
    pressure = await tgi.pressure()
    assert pressure is not None
    assert pressure.waiting == 3
    assert tgi.kv_tokens == 65536


async def test_an_older_tgi_tells_its_pool_at_info(tgi: Tgi, order: tgi_engine.Order) -> None:
    """Before 3.0 it stood beside the other limits; what a proxy adds there is believed as well."""
    order.info |= {"max_batch_total_tokens": 1259392, "max_batch_prefill_tokens": 8192, "max_concurrent_requests": 1}
    order.metrics = ""
    await tgi.probe()
    assert (tgi.slots, tgi.kv_tokens, tgi.prefill_chunk_tokens) == (1, 1259392, 8192)


@pytest.mark.parametrize(
    "change",
    [
        {"model_id": 7},
        {"model_id": "a\0b"},
        {"model_id": ""},
        {"max_concurrent_requests": -1},
        {"max_concurrent_requests": True},
        {"max_total_tokens": None},
        {"max_total_tokens": "4k"},
    ],
)
async def test_limits_that_are_none_are_the_engines_fault(
    tgi: Tgi, order: tgi_engine.Order, change: dict[str, Any]
) -> None:
    """What is no /info of TGI's is no engine that can be used."""
    order.info |= change
    with pytest.raises(EngineFailed, match="TGI"):
        await tgi.probe()


@pytest.mark.parametrize("body", [b"<html>", b"\xff\xfe", b"[]", b"[" * 200_000, b"", b"7"])
async def test_info_that_is_no_json_is_the_engines_fault(body: bytes) -> None:
    """Whatever stands there, the probe fails in one way only."""
    async with serve_raw() as raw:
        raw.answers["/info"] = [reply(body)]
        engine = Tgi(raw.url, slots=1, silence_ms_max=300)
        with pytest.raises(EngineFailed):
            await engine.probe()
        await engine.close()


async def test_a_completion_goes_to_tgis_own_route(tgi: Tgi, order: tgi_engine.Order) -> None:
    """Its tokens come back as OpenAI's events, with its reason and its counts."""
    *tokens, end, usage = await ask(tgi, TEXT | {"top_k": 5, "max_tokens": 9, "stop": "x", "temperature": 0})
    assert [event["choices"][0]["text"] for event in tokens] == [" word0", " word1", " word2"]
    assert all(event["object"] == "text_completion" for event in (*tokens, end))
    assert (end["choices"][0]["text"], end["choices"][0]["finish_reason"]) == ("", "stop")
    assert usage["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    ((path, body),) = order.seen
    assert path == "/generate_stream"
    assert body["inputs"] == "secret-prompt"
    asked = {name: value for name, value in body["parameters"].items() if value}
    assert asked == {"details": True, "top_k": 5, "max_new_tokens": 9, "stop": ["x"]}
    assert order.headers[0]["X-Request-Id"] == "id-of-this-request"
    assert order.headers[0]["Authorization"] == "Bearer sk-of-this-engine"


async def test_a_completion_tells_logprobs_and_ids(tgi: Tgi) -> None:
    """They come as OpenAI has them, with the ids beside, as vLLM names them."""
    first, *_ = await ask(tgi, TEXT | {"logprobs": 1})
    choice = first["choices"][0]
    assert choice["token_ids"] == [100]
    assert choice["logprobs"]["token_logprobs"] == [-0.5]
    assert choice["logprobs"]["top_logprobs"] == [{" word0": -0.5}]


async def test_a_completion_ends_at_its_length(tgi: Tgi) -> None:
    """The last token is a word then, and it is not lost."""
    first, second, usage = await ask(tgi, TEXT | {"max_tokens": 2})
    assert (first["choices"][0]["text"], second["choices"][0]["text"]) == (" word0", " word1")
    assert second["choices"][0]["finish_reason"] == "length"
    assert usage["usage"]["completion_tokens"] == 2


async def test_a_completion_in_one_piece(tgi: Tgi) -> None:
    """It is put together from the tokens."""
    opened = await tgi.open("completions", TEXT | {"stream": False}, "id", "salt")
    whole = json.loads(await opened.read())
    assert whole["choices"][0]["text"] == " word0 word1 word2"
    assert whole["usage"]["prompt_tokens"] == 7


LINE_ENDS = ["a\u2028b", "\u2029", "\x85c", "\x0b\x0c\x1c\x1d\x1e", "data:", "\r", "[DONE]", "🦙", '"', "\\u2028"]


async def test_every_character_arrives(tgi: Tgi, order: tgi_engine.Order) -> None:
    """Also those that some take for the end of a line, in both ways to ask."""
    order.texts = LINE_ENDS
    told = await ask(tgi, TEXT)
    assert [event["choices"][0]["text"] for event in told[:-2]] == LINE_ENDS
    told = await ask(tgi, CHAT)
    assert [event["choices"][0]["delta"]["content"] for event in told[:-2]] == LINE_ENDS


async def test_a_conversation_is_passed_on(tgi: Tgi, order: tgi_engine.Order) -> None:
    """Pictures, tools and whatever else there is reach TGI; chunks come back as they are, with usage."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, picture]}]
    *words, end, usage = await ask(tgi, CHAT | {"messages": messages, "logprobs": True, "top_logprobs": 2})
    assert "".join(event["choices"][0]["delta"]["content"] for event in words) == " word0 word1 word2"
    assert end["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    ((_, body),) = order.seen
    assert body["messages"] == messages
    assert (body["model"], body["logprobs"], body["top_logprobs"]) == ("tgi", True, 2)


async def test_a_tool_call_ends_with_its_reason(tgi: Tgi, order: tgi_engine.Order) -> None:
    """TGI leaves it out; OpenAI's clients look for it."""
    order.calls = ["{", '"city": "Graz"', "}"]
    told = await ask(tgi, CHAT | {"tools": [{"type": "function", "function": {"name": "get_weather"}}]})
    calls = [event["choices"][0]["delta"].get("tool_calls") for event in told if event["choices"]]
    assert "".join(call[0]["function"]["arguments"] for call in calls if call) == '{"city": "Graz"}'
    reasons = [event["choices"][0]["finish_reason"] for event in told if event["choices"]]
    assert [reason for reason in reasons if reason] == ["tool_calls"]


async def test_a_stop_word_is_a_stop(tgi: Tgi, order: tgi_engine.Order) -> None:
    """TGI has a word of its own for it."""

    async def stopped(_order: tgi_engine.Order, request: Any, _body: Any) -> Any:
        response = await tgi_engine.event_stream(request)
        await response.write(tgi_engine.chat_chunk({"role": "assistant", "content": "x"}, "stop_sequence"))
        await response.write(tgi_engine.DONE)
        return response

    order.behaviour = stopped
    (only,) = await ask(tgi, CHAT)
    assert only["choices"][0]["finish_reason"] == "stop"


async def test_what_openais_clients_send_is_understood(tgi: Tgi) -> None:
    """Their defaults, at which TGI would answer 422, are no fault."""
    defaults = {"top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "n": 1, "stop": "x", "logit_bias": None}
    json_schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    for wanted in (json_schema, {"type": "json_object"}, {"type": "text"}):
        assert await ask(tgi, CHAT | defaults | {"max_completion_tokens": 2, "response_format": wanted})
    assert await ask(tgi, TEXT | defaults | {"best_of": 1})


EVENTS = [b'data: {"a":1}', b":", "data: {\u2028🦙}".encode(), b"data: [DONE]", b"event: x\ndata: 2"]


@given(
    st.lists(st.sampled_from(EVENTS), max_size=12),
    st.lists(st.integers(0, 200), max_size=20),
    st.sampled_from(["", "\r"]),
)
def test_events_are_the_same_however_they_come(events: list[bytes], cuts: list[int], end: str) -> None:
    """Cut anywhere, with either line end: all that hold data arrive, whole and in order, and comments alone do not."""
    line_end = end.encode() + b"\n"
    told = b"".join(event.replace(b"\n", line_end) + line_end * 2 for event in events)
    borders = [0, *sorted(cut for cut in cuts if cut < len(told)), len(told)]
    stream = Events(Faults("engine"), None, silence_s=1, stall_s=1)  # type: ignore[arg-type]  # nothing is read from it
    pieces = [stream._whole(told[start:stop]) for start, stop in itertools.pairwise(borders)]
    assert all(b"data:" in piece for piece in pieces if piece)
    arrived = [event for event in b"".join(pieces).split(b"\n\n") if b"data:" in event]
    assert arrived == [event for event in events if b"data:" in event]


def test_fields_are_translated() -> None:
    """What is called otherwise goes on under TGI's names; other models are LoRA adapters."""
    told = chat_body(
        {
            "model": "lora",
            "max_completion_tokens": 5,
            "max_tokens": 7,
            "presence_penalty": 0.5,
            "top_p": 0.5,
            "response_format": {"type": "json_object"},
            "stream": None,
        },
        "base",
    )
    assert told == {
        "model": "lora",
        "max_tokens": 5,
        "presence_penalty": 0.5,
        "top_p": 0.5,
        "response_format": {"type": "json_object", "value": {"type": "object"}},
    }
    assert generate_parameters({"model": "lora", "prompt": ["p"], "top_k": -1, "temperature": 0.5}, "base") == (
        "p",
        {"do_sample": True, "temperature": 0.5, "adapter_id": "lora"},
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 2), ("best_of", 2), ("logit_bias", {"5": 1}), ("suffix", "x"), ("echo", True), ("prompt", [1, 2])],
)
async def test_what_tgi_would_ignore_is_refused(tgi: Tgi, order: tgi_engine.Order, field: str, value: Any) -> None:
    """Who asks for two answers is told, instead of getting one."""
    with pytest.raises(InvalidRequest) as caught:
        await tgi.open("completions", TEXT | {field: value}, "id", "salt")
    assert caught.value.param == field
    assert order.seen == []


async def test_there_are_no_embeddings(tgi: Tgi) -> None:
    """TGI has no route for them."""
    with pytest.raises(NotFound):
        await tgi.open("embeddings", {"input": "x"}, "id", "salt")


@pytest.mark.parametrize("body", [CHAT, TEXT, CHAT | {"stream": False}])
async def test_a_full_tgi_is_full(tgi: Tgi, order: tgi_engine.Order, body: dict[str, Any]) -> None:
    """As a status or as the first event of a stream."""
    order.is_full = True
    with pytest.raises(Unavailable) as caught:
        await ask(tgi, body)
    assert (caught.value.code, caught.value.retry_after_s) == ("engine_busy", 2)


@pytest.mark.parametrize("body", [CHAT, TEXT])
async def test_what_does_not_fit_is_told_as_such(tgi: Tgi, body: dict[str, Any]) -> None:
    """TGI's sentence reaches the caller, with OpenAI's code."""
    with pytest.raises(InvalidRequest, match="must be <= 4096") as caught:
        await ask(tgi, body | {"max_tokens": 5000})
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("status", [424, 500, 503, 404, 401, 422, 429])
async def test_statuses_become_errors(tgi: Tgi, order: tgi_engine.Order, status: int) -> None:
    """As the other adapters read them; 424 is TGI's word for a generation that failed."""

    async def refuse(_order: tgi_engine.Order, _request: Any, _body: Any) -> Any:
        body = json.dumps({"error": "some sentence", "error_type": "some_type"})
        return web.Response(status=status, text=body, content_type="application/json")

    order.behaviour = refuse
    expected = {424: 502, 500: 502, 503: 503, 404: 404, 401: 502, 422: 400, 429: 503}[status]
    for body in (CHAT, TEXT):
        with pytest.raises(WirthforgeError) as caught:
            await ask(tgi, body)
        assert caught.value.status == expected


async def test_comments_are_no_sign_of_life(tgi: Tgi, order: tgi_engine.Order) -> None:
    """A TGI that only keeps the connection open has fallen silent."""

    async def comment(_order: tgi_engine.Order, request: Any, _body: Any) -> Any:
        response = await tgi_engine.event_stream(request)
        while True:  # until the client goes
            await response.write(tgi_engine.COMMENT)
            await tgi_engine.pause()

    order.behaviour = comment
    for body in (CHAT, TEXT):
        with pytest.raises(EngineTimeout):
            await ask(tgi, body)


@pytest.mark.parametrize("body", [CHAT, TEXT])
async def test_a_stall_is_a_fault_sooner(tgi: Tgi, order: tgi_engine.Order, body: dict[str, Any]) -> None:
    """After the first token an engine may pause for less long than before."""
    engine = Tgi(tgi.root, slots=1, silence_ms_max=60_000)
    engine.stall_s = 0.2
    order.held_after = 1
    order.hold.clear()
    opened = await engine.open("chat.completions" if "messages" in body else "completions", body, "id", "salt")
    chunks = aiter(opened.chunks())
    assert await anext(chunks)
    opened.expect_tokens()
    async with asyncio.timeout(10):
        with pytest.raises(EngineTimeout):
            await anext(chunks)
    opened.close()
    await engine.close()


@pytest.mark.parametrize("body", [CHAT, TEXT])
async def test_no_hub_token_and_no_cookie_go_out(monkeypatch: pytest.MonkeyPatch, body: dict[str, Any]) -> None:
    """What this machine knows of the Hub is no business of an engine's, and neither is a proxy of ours."""
    monkeypatch.setenv("HF_TOKEN", "hf_of-this-machine")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with serve_raw() as raw:
        raw.answers["/v1/chat/completions"] = raw.answers["/generate_stream"] = [STREAM_BEGUN]
        engine = Tgi(raw.url, slots=1, silence_ms_max=300)
        with pytest.raises(EngineFailed):
            await engine.probe()
        with pytest.raises(EngineFailed):
            await ask(engine, body)
        await engine.close()
    assert len(raw.seen) == 2
    assert not any("hf_" in head or "uthorization" in head for head, _ in raw.seen)


async def test_it_goes_on_with_a_completion(tgi: Tgi, order: tgi_engine.Order) -> None:
    """By one text that is the prompt and what was written; chats have a template, which it tells nobody."""
    assert isinstance(tgi, Resumes)
    assert tgi.continues == {"completions"}
    written = Written((Piece(" one"), Piece(" two")), 2)
    opened, read = await tgi.resume("completions", {**TEXT, "max_tokens": 5}, written, "id", "salt")
    record = Record()
    record.keep(b"".join([chunk async for chunk in opened.chunks()]))
    opened.close()
    assert read == 2
    assert record.written(0).text
    assert order.seen[-1][1]["inputs"] == "secret-prompt one two"
    assert order.seen[-1][1]["parameters"]["max_new_tokens"] == 3
