"""The adapter for Ollama, against a stand-in that speaks its wire format; docs/ollama.md tells of the real one."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from server.chat.meter import Meter
from server.engines.continuation import Record
from server.engines.ollama import Ollama
from server.engines.places import Bounds, Load, State
from server.engines.protocol import Resumes
from server.engines.residency import Residency
from server.errors import EngineFailed, EngineTimeout, InvalidRequest, NotFound, Unavailable, WirthforgeError
from server.messages import Piece, ServedModel, Surface, Written
from tests.clocks import FakeClock
from tests.engines.raw_engine import reply, serve_raw
from tests.stand_ins import ollama_engine

TINY = "tiny:latest"
LARGE = "large:latest"
MESSAGES = [{"role": "user", "content": "secret-prompt"}]
CHAT: dict[str, Any] = {"model": TINY, "messages": MESSAGES}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGFsbG8="}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}


@pytest.fixture
async def stand_in() -> AsyncIterator[ollama_engine.Ollama]:
    """One that runs, with two models that do not fit together."""
    ollama = ollama_engine.Ollama(
        [
            ollama_engine.Model(TINY, 4_000, modelfile_context_tokens=512),
            ollama_engine.Model(LARGE, 8_000, capabilities=("completion", "vision")),
            ollama_engine.Model("far:latest", remote_host="https://ollama.com"),
        ],
    )
    async with ollama_engine.serve(ollama):
        yield ollama


@pytest.fixture
async def engine(stand_in: ollama_engine.Ollama) -> AsyncIterator[Ollama]:
    """An adapter of it."""
    adapter = Ollama(stand_in.url, slots=2, silence_ms_max=3_000)
    yield adapter
    await adapter.close()


async def answer(engine: Ollama, **changes: Any) -> dict[str, Any]:
    """One that is read to its end."""
    opened = await engine.open("chat.completions", {**CHAT, **changes}, "id", "salt")
    try:
        decoded: dict[str, Any] = json.loads(await opened.read())
    finally:
        opened.close()
    return decoded


async def test_models_of_this_machine_are_listed_with_their_context(engine: Ollama) -> None:
    """The Modelfile's context counts, else what it was trained for; what runs in a cloud is no model of this box."""
    assert await engine.probe() == (
        ServedModel(id=TINY, context_tokens=512),
        ServedModel(id=LARGE, context_tokens=4_096),
    )
    assert (engine.kind, engine.slots, engine.kv_tokens, engine.isolates_caches) == ("ollama", 2, 0, False)
    assert await engine.pressure() is None


async def test_a_model_that_has_run_has_the_context_that_it_ran_with(
    engine: Ollama, stand_in: ollama_engine.Ollama
) -> None:
    """Ollama tells its default context only of what is loaded; it is remembered when the model has gone."""
    await engine.load(LARGE)
    await engine.unload(LARGE)
    assert stand_in.loaded == {}
    assert (await engine.probe())[1].context_tokens == 2_048


async def test_a_model_is_asked_about_once(engine: Ollama, stand_in: ollama_engine.Ollama) -> None:
    """Probes go on for ever; what cannot change is not asked again."""
    for _ in range(3):
        await engine.probe()
    assert stand_in.asked.count("POST /api/show") == 2


async def test_a_stream_is_passed_as_it_is(engine: Ollama) -> None:
    """Bytes are Ollama's own, with the usage at the end."""
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    opened = await engine.open("chat.completions", body, "id", "salt")
    got = b"".join([chunk async for chunk in opened.chunks()])
    opened.close()
    assert got.startswith(ollama_engine.chunk(TINY, {"role": "assistant", "content": " Nobody"}))
    assert got.endswith(b'"usage":{"prompt_tokens":25,"completion_tokens":3,"total_tokens":28}}\n\ndata: [DONE]\n\n')


async def test_a_completion_has_one_usage(engine: Ollama, stand_in: ollama_engine.Ollama) -> None:
    """Ollama's usage of nothing in each event is left out; and a list of one prompt is one prompt."""
    body = {"model": TINY, "prompt": ["A slot"], "stream": True, "stream_options": {"include_usage": True}}
    opened = await engine.open("completions", body, "id", "salt")
    got = b"".join([chunk async for chunk in opened.chunks()])
    opened.close()
    assert stand_in.seen[-1]["prompt"] == "A slot"
    assert got.startswith(ollama_engine.text_chunk(TINY, " Nobody", {}))
    assert got.count(b'"usage"') == 1
    assert got.endswith(b'"usage":{"prompt_tokens":25,"completion_tokens":3,"total_tokens":28}}\n\ndata: [DONE]\n\n')


async def test_tools_schemas_probabilities_and_images_pass(engine: Ollama, stand_in: ollama_engine.Ollama) -> None:
    """What `/v1` understands reaches Ollama unchanged."""
    await engine.probe()
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}}
    asked = {"tools": [TOOL], "response_format": schema, "logprobs": True, "top_logprobs": 1, "seed": 7}
    got = await answer(engine, **asked, tool_choice="auto", n=1)
    assert stand_in.seen[-1] == {**CHAT, **asked}
    assert got["choices"][0]["logprobs"]["content"][0]["token"] == " Nobody"
    messages = [{"role": "user", "content": [{"type": "text", "text": "what"}, IMAGE]}]
    await answer(engine, model=LARGE, messages=messages)
    assert stand_in.seen[-1]["messages"] == messages


async def test_embeddings_are_answered(engine: Ollama) -> None:
    """A list of texts gives a list of vectors."""
    opened = await engine.open("embeddings", {"model": TINY, "input": ["a", "b"]}, "id", "salt")
    assert [each["index"] for each in json.loads(await opened.read())["data"]] == [0, 1]
    opened.close()


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": 9}, {"max_tokens": 5}),
        ({"max_completion_tokens": None, "max_tokens": 9}, {"max_tokens": 9}),
        ({"tool_choice": "none", "tools": [TOOL]}, {}),
        ({"n": 1, "best_of": None}, {}),
    ],
)
async def test_what_ollama_calls_otherwise_is_renamed(
    engine: Ollama, stand_in: ollama_engine.Ollama, asked: dict[str, Any], sent: dict[str, Any]
) -> None:
    """A bound that Ollama does not know must not be lost; and the caller's request is left as it was."""
    body = {**CHAT, **asked}
    before = dict(body)
    opened = await engine.open("chat.completions", body, "id", "salt")
    opened.close()
    assert stand_in.seen[-1] == {**CHAT, **sent}
    assert body == before


@pytest.mark.parametrize(
    "asked",
    [
        {"n": 2},
        {"best_of": 3},
        {"n": [1]},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"messages": [{"role": "user", "content": [IMAGE]}]},
    ],
)
async def test_what_ollama_would_leave_out_is_refused(
    engine: Ollama, stand_in: ollama_engine.Ollama, asked: dict[str, Any]
) -> None:
    """A request that Ollama would answer only in part is told so, and is not sent."""
    await engine.probe()
    with pytest.raises(InvalidRequest) as caught:
        await answer(engine, **asked)
    assert caught.value.code == "not_supported"
    assert caught.value.param == next(iter(asked))
    assert stand_in.seen == []


@pytest.mark.parametrize("prompt", [["a", "b"], [], [[1, 2]], [1, 2]])
async def test_several_prompts_are_refused(engine: Ollama, prompt: Any) -> None:
    """One text is what Ollama completes."""
    with pytest.raises(InvalidRequest, match="one prompt"):
        await engine.open("completions", {"model": TINY, "prompt": prompt}, "id", "salt")


async def test_a_prompt_beyond_the_context_is_told_in_plain_words(engine: Ollama) -> None:
    """The sentence inside of Ollama's JSON inside of JSON reaches the caller, and has the code of its kind."""
    with pytest.raises(InvalidRequest) as caught:
        await answer(engine, messages=[{"role": "user", "content": "word " * 2_000}])
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.message.startswith("request (")


async def test_refusals_have_their_kind(engine: Ollama, stand_in: ollama_engine.Ollama) -> None:
    """Unknown models, tools for a model that has none, and models that cannot be loaded."""
    with pytest.raises(NotFound, match="not found"):
        await answer(engine, model="nope")
    with pytest.raises(InvalidRequest, match="does not support tools"):
        await answer(engine, model=LARGE, tools=[TOOL])
    stand_in.is_full = True
    with pytest.raises(Unavailable):
        await answer(engine)
    stand_in.is_full = False
    stand_in.models[0].fault = (500, "llama-server process no longer running: -1")
    with pytest.raises(EngineFailed):
        await answer(engine)
    with pytest.raises(EngineFailed, match="no longer running"):
        await engine.load(TINY)
    with pytest.raises(NotFound):
        await engine.load("nope")


@pytest.mark.parametrize("surface", ["chat.completions", "completions"])
async def test_a_crash_in_mid_stream_is_no_end(
    engine: Ollama, stand_in: ollama_engine.Ollama, surface: Surface
) -> None:
    """When its llama-server is killed, Ollama ends the stream as if nothing were wrong; the meter is not deceived."""
    stand_in.breaks = True
    asked = {"model": TINY, "messages": MESSAGES, "prompt": "A", "stream": True}
    opened = await engine.open(surface, asked, "id", "salt")
    meter = Meter(shows_usage=True)
    async for chunk in opened.chunks():
        meter.feed(chunk)
    opened.close()
    with pytest.raises(EngineFailed):
        meter.end()


async def test_hanging_up_stops_the_engine(engine: Ollama, stand_in: ollama_engine.Ollama) -> None:
    """A reply that is closed closes the connection."""
    stand_in.hold.clear()
    opened = await engine.open("chat.completions", {**CHAT, "stream": True}, "id", "salt")
    await anext(opened.chunks())
    assert not stand_in.gone.is_set()
    opened.close()
    assert await asyncio.wait_for(stand_in.gone.wait(), 5)


async def test_an_engine_that_says_nothing_is_given_up(stand_in: ollama_engine.Ollama) -> None:
    """While it loads, too: a load takes longer than silence may, which is why models are loaded before."""
    adapter = Ollama(stand_in.url, slots=1, silence_ms_max=100)
    stand_in.load.clear()
    with pytest.raises(EngineTimeout):
        await answer(adapter)
    await adapter.close()


async def test_models_come_and_go(engine: Ollama, stand_in: ollama_engine.Ollama) -> None:
    """A load keeps the model for good, an unload waits until its memory is free; both may be repeated."""
    assert await engine.states() == {TINY: State.COLD, LARGE: State.COLD}
    for _ in range(2):
        await engine.load(TINY)
        assert await engine.states() == {TINY: State.RESIDENT, LARGE: State.COLD}
    assert stand_in.loads == [TINY]
    assert stand_in.loaded == {TINY: True}
    await answer(engine)
    # A request without `keep_alive` takes nothing away from that.
    assert stand_in.loaded == {TINY: True}
    for _ in range(2):
        await engine.unload(TINY)
    assert await engine.states() == {TINY: State.COLD, LARGE: State.COLD}


async def test_an_unload_is_over_when_the_model_has_gone(stand_in: ollama_engine.Ollama) -> None:
    """Ollama answers before it has done it, so the list of what runs is watched."""
    clock = FakeClock()
    adapter = Ollama(stand_in.url, slots=1, silence_ms_max=1_000, clock=clock)
    await adapter.load(TINY)
    stand_in.recovery_polls = 2
    unloading = asyncio.ensure_future(adapter.unload(TINY))
    while not unloading.done():
        clock.advance(timedelta(milliseconds=250))
        await asyncio.wait({unloading}, timeout=0.01)
    await unloading
    assert stand_in.asked.count("GET /api/ps") == 4
    await adapter.close()


async def test_sizes_are_those_in_memory_once_they_were_seen(engine: Ollama, stand_in: ollama_engine.Ollama) -> None:
    """Before, a model counts with its file."""
    assert engine.size_bytes(TINY) == 0
    await engine.probe()
    assert engine.size_bytes(TINY) == 4_000
    stand_in.models[0].size_bytes = 5_000
    await engine.load(TINY)
    assert engine.size_bytes(TINY) == 5_000


async def test_two_people_share_a_memory_that_is_too_small(engine: Ollama, stand_in: ollama_engine.Ollama) -> None:
    """With a residency before it, Ollama itself never has to evict: one model goes before the other comes."""
    await engine.probe()
    clock = FakeClock()
    loaded: list[Load] = []
    residency = Residency(
        {"ollama": engine},
        size_bytes=lambda _engine, model: engine.size_bytes(model),
        budget_bytes=lambda: 10_000,
        clock=clock,
        on_load=loaded.append,
        bounds=Bounds(hold_ms_min=1_000),
    )
    running = asyncio.ensure_future(residency.run())

    async def person(model: str) -> None:
        for _ in range(3):
            async with residency.use("ollama", model, caused_by=model):
                assert list(stand_in.loaded) == [model]
                await answer(engine, model=model)

    people = [asyncio.ensure_future(person(model)) for model in (TINY, LARGE)]
    while not all(each.done() for each in people):
        clock.advance(timedelta(milliseconds=100))
        await asyncio.wait(people, timeout=0.01)
    await asyncio.gather(*people)
    running.cancel()
    await asyncio.wait({running})
    assert [load.model for load in loaded] == [TINY, LARGE]
    assert loaded[1].evicted == (("ollama", TINY),)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>It works!</html>",
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"models":{}}',
        b'{"models":[{"name":"m"}]}',
        b'{"models":[{"model":7}]}',
        b'{"models":[{"model":"m","size":"large"}]}',
        b'{"models":' + b"[" * 200_000,
    ],
)
async def test_a_list_that_is_none_is_the_engines_fault(body: bytes) -> None:
    """Whatever stands where the models should stand, the probe fails in one way only."""
    async with serve_raw() as raw:
        raw.answers["/api/tags"] = [reply(body)]
        adapter = Ollama(raw.url.removesuffix("/v1"), slots=1, silence_ms_max=1_000)
        with pytest.raises(EngineFailed):
            await adapter.probe()
        await adapter.close()


async def test_a_redirect_is_not_followed() -> None:
    """The engine's key does not go to where an engine points."""
    async with serve_raw() as elsewhere, serve_raw() as raw:
        raw.answers["/api/tags"] = [reply(b"", "302 Found", Location=f"{elsewhere.url}/models")]
        adapter = Ollama(raw.url.removesuffix("/v1"), slots=1, silence_ms_max=1_000, api_key="sk-ollama")
        with pytest.raises(EngineFailed, match="302"):
            await adapter.probe()
        assert "Bearer sk-ollama" in raw.seen[0][0]
        assert elsewhere.seen == []
        await adapter.close()


async def test_one_model_that_cannot_be_shown_leaves_the_others() -> None:
    """A broken manifest is that model's fault alone."""
    listed = {"models": [{"model": "m:latest", "digest": "d", "details": {"context_length": 99}}]}
    async with serve_raw() as raw:
        raw.answers["/api/tags"] = [reply(json.dumps(listed).encode())]
        raw.answers["/api/ps"] = [reply(b'{"models":[]}')]
        raw.answers["/api/show"] = [reply(b'{"error":"unexpected EOF"}', "500 Internal Server Error")]
        adapter = Ollama(raw.url.removesuffix("/v1"), slots=1, silence_ms_max=1_000)
        assert await adapter.probe() == (ServedModel(id="m:latest", context_tokens=99),)
        await adapter.close()


async def test_an_engine_that_is_away_is_told_as_such() -> None:
    """Every call fails as an engine's fault."""
    adapter = Ollama("http://127.0.0.1:9", slots=1, silence_ms_max=1_000)
    for call in (adapter.probe(), adapter.states(), adapter.load("m"), adapter.unload("m"), answer(adapter)):
        with pytest.raises(WirthforgeError) as caught:
            await call
        assert caught.value.code == "engine_unreachable"
    await adapter.close()


async def test_it_goes_on_with_a_chat(engine: Ollama, stand_in: ollama_engine.Ollama) -> None:
    """By the beginning of the answer as the last message, with what is left of its bound."""
    await engine.probe()
    assert isinstance(engine, Resumes)
    assert engine.continues == {"chat.completions"}
    body = {**CHAT, "stream": True, "max_completion_tokens": 9}
    written = Written((Piece(ollama_engine.WORDS[0]),), 1)
    opened, read = await engine.resume("chat.completions", body, written, "id", "salt")
    record = Record()
    record.keep(await opened.read())
    opened.close()
    assert (record.written(0).text, read) == ("".join(ollama_engine.WORDS[1:]), 1)
    asked = stand_in.seen[-1]
    assert asked["messages"] == [*MESSAGES, {"role": "assistant", "content": ollama_engine.WORDS[0]}]
    assert asked["max_tokens"] == 8
