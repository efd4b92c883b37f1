"""What every adapter does, tried on each with its engine (benches.py)."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.chat.meter import Meter
from server.engines.protocol import Engine
from server.errors import EngineFailed, InvalidRequest, Unavailable, WirthforgeError
from server.messages import Surface
from tests.engines.benches import BENCHES, CHAT, TEXT, Bench, Stand
from tests.engines.raw_engine import Raw, reply, serve_raw

ASKED: dict[Surface, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "What is a slot?"}]},
    TEXT: {"prompt": "A slot is"},
}
OBJECTS = {CHAT: "chat.completion.chunk", TEXT: "text_completion"}
# llama.cpp's is that of the stand-in for OpenAI's surface; bytes need no engine.
ADAPTERS = [bench for bench in BENCHES if bench.name != "llama.cpp" and not bench.is_given]
# Far less than the whole answer would take.
STOPS_MS_MAX = 3_000
MEGABYTE = 1 << 20
MEMORY_BYTES_MAX = 48 * MEGABYTE


@pytest.fixture(scope="module", params=BENCHES, ids=lambda bench: bench.name)
async def stand(request: pytest.FixtureRequest, short_dir: Path) -> AsyncIterator[Stand]:
    """An engine that stays as it is."""
    async with request.param.running(short_dir) as running:
        yield running


def body(surface: Surface, model: str, tokens: int = 8) -> dict[str, Any]:
    """A request for a stream."""
    options = {"stream": True, "stream_options": {"include_usage": True}}
    return {"model": model, "max_tokens": tokens, **ASKED[surface], **options}


async def bytes_of(engine: Engine, surface: Surface, asked: dict[str, Any]) -> bytes:
    """All of an answer, as the pipeline takes it: through the meter, which judges events."""
    opened = await engine.open(surface, asked, "id-of-the-request", "salt")
    meter = Meter(shows_usage=True)
    taken = []
    try:
        async for chunk in opened.chunks():
            taken.append(meter.feed(chunk))
            if meter.fault is not None:
                raise meter.fault
            if meter.is_complete:
                break
        else:
            taken.append(meter.end())
    finally:
        opened.close()
    return b"".join(taken)


async def test_it_lists_its_models(stand: Stand) -> None:
    """A probe tells the models, and how many requests the engine takes at a time."""
    models = await stand.engine.probe()
    assert stand.model in [model.id for model in models]
    assert stand.engine.slots >= 1
    assert stand.engine.kv_tokens >= 0
    assert stand.engine.name
    assert stand.engine.kind


@pytest.mark.parametrize("surface", [CHAT, TEXT])
async def test_it_streams_in_openais_format(stand: Stand, surface: Surface) -> None:
    """Events of one sort, a text, one reason for the end, the usage, and `[DONE]` as the last."""
    events = (await bytes_of(stand.engine, surface, body(surface, stand.model))).decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    told = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    choices = [event["choices"][0] for event in told if event["choices"]]
    assert {event["object"] for event in told if event["choices"]} == {OBJECTS[surface]}
    parts = [choice["delta"] if surface == CHAT else {"content": choice["text"]} for choice in choices]
    assert "".join(part.get("content") or "" for part in parts)
    reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    assert len(reasons) == 1
    assert reasons[0] in {"stop", "length"}
    (usage,) = [event["usage"] for event in told if event.get("usage")]
    assert usage["prompt_tokens"] > 0
    assert 0 < usage["completion_tokens"] <= 8


@pytest.mark.parametrize("surface", [CHAT, TEXT])
async def test_a_refusal_blames_the_request(stand: Stand, surface: Surface) -> None:
    """What does not fit is the asker's fault, with the engine's own sentence, and not the engine's."""
    if not stand.too_much:
        pytest.skip("The engine does not tell its context.")
    with pytest.raises(InvalidRequest) as caught:
        await bytes_of(stand.engine, surface, body(surface, stand.model) | _own(stand, surface))
    assert caught.value.code == "context_length_exceeded"
    assert len(caught.value.message) > 20


def _own(stand: Stand, surface: Surface) -> dict[str, Any]:
    """The fields that are too much, of those that this surface has."""
    others = set(ASKED[TEXT if surface == CHAT else CHAT])
    return {name: value for name, value in stand.too_much.items() if name not in others}


@pytest.mark.parametrize("surface", [CHAT, TEXT])
@pytest.mark.parametrize("bench", BENCHES, ids=lambda bench: bench.name)
async def test_it_stops_when_its_client_goes(bench: Bench, surface: Surface, short_dir: Path) -> None:
    """Hanging up in mid-stream ends the work, at once and without waiting; twice does no harm."""
    async with bench.running(short_dir) as stand:
        await stand.engine.probe()
        stand.hold()
        opened = await stand.engine.open(surface, body(surface, stand.model, tokens=1500), "id", "salt")
        assert await anext(aiter(opened.chunks()))
        opened.close()
        opened.close()
        async with asyncio.timeout(STOPS_MS_MAX / 1000):
            await stand.stopped()


@pytest.mark.parametrize("surface", [CHAT, TEXT])
@pytest.mark.parametrize("bench", [each for each in BENCHES if not each.is_given], ids=lambda bench: bench.name)
async def test_an_engine_that_dies_has_failed(bench: Bench, surface: Surface, short_dir: Path) -> None:
    """In the middle of its answer: the stream does not end as if it were complete."""
    async with bench.running(short_dir) as stand:
        await stand.engine.probe()
        stand.doom()
        # A tiny model may say at any token that it has ended.
        asked = body(surface, stand.model, tokens=1500) | {"ignore_eos": True}
        opened = await stand.engine.open(surface, asked, "id", "salt")
        chunks = opened.chunks()
        assert await anext(aiter(chunks))
        await stand.die()
        with pytest.raises(EngineFailed):
            await drained(chunks)
        opened.close()


async def drained(chunks: AsyncIterator[bytes]) -> None:
    """Take the rest, which has no end mark."""
    async for chunk in chunks:
        assert b"[DONE]" not in chunk


@pytest.mark.parametrize("surface", [CHAT, TEXT])
@pytest.mark.parametrize("bench", [each for each in BENCHES if each.can_be_full], ids=lambda bench: bench.name)
async def test_an_engine_that_is_full_is_to_be_asked_later(bench: Bench, surface: Surface, short_dir: Path) -> None:
    """Neither the asker's fault nor a failure, and it is said when to come again."""
    async with bench.running(short_dir) as stand:
        await stand.engine.probe()
        assert stand.fill is not None
        stand.fill()
        with pytest.raises(Unavailable) as caught:
            await bytes_of(stand.engine, surface, body(surface, stand.model))
        assert (caught.value.retry_after_s or 0) >= 1


# What may stand where an event should; the bench frames it.
RUBBISH = {
    "half a thing": b'{"choices":',
    "no object": b"[]",
    "a number": b"7",
    "not UTF-8": b'{"choices":[{"index":0,"text":"\xff\xfe","delta":{"content":"\xff"}}]}',
    "nested deeply": b"[" * 100_000,
    "an object nested deeply": b'{"a":' * 100_000,
    "an error": b'{"error":"out of memory"}',
}


async def failed(bench: Bench, surface: Surface, packets: list[bytes]) -> tuple[WirthforgeError, Raw]:
    """What comes of an engine that answers with these bytes."""
    async with serve_raw() as raw:
        raw.answers[bench.paths[surface]] = packets
        engine = bench.adapter(raw.url, 2_000)
        try:
            with pytest.raises(WirthforgeError) as caught:
                await bytes_of(engine, surface, body(surface, "raw"))
        finally:
            await engine.close()
        assert bench.paths[surface] in raw.paths()
    return caught.value, raw


@pytest.mark.parametrize("surface", [CHAT, TEXT])
@pytest.mark.parametrize("bench", ADAPTERS, ids=lambda bench: bench.name)
async def test_rubbish_among_the_events_is_the_engines_fault(bench: Bench, surface: Surface) -> None:
    """Whatever stands there, there is one kind of error with a sentence, which holds nothing of it."""
    for what, rubbish in RUBBISH.items():
        error, _ = await failed(bench, surface, [bench.begun, bench.event(rubbish)])
        assert isinstance(error, EngineFailed), what
        assert "memory" not in error.message


@pytest.mark.parametrize("surface", [CHAT, TEXT])
@pytest.mark.parametrize("bench", ADAPTERS, ids=lambda bench: bench.name)
async def test_a_page_is_no_answer(bench: Bench, surface: Surface) -> None:
    """A web page with status 200, an empty answer, a connection that is closed at once."""
    for packet in (reply(b"<html>It works!</html>", kind="text/html"), bench.begun, b"", b"\x00\xff"):
        error, _ = await failed(bench, surface, [packet])
        assert isinstance(error, EngineFailed)


@pytest.mark.parametrize("surface", [CHAT, TEXT])
@pytest.mark.parametrize("bench", ADAPTERS, ids=lambda bench: bench.name)
async def test_a_redirect_is_not_followed(bench: Bench, surface: Surface) -> None:
    """The prompt goes to the engine that was named, and nowhere else."""
    async with serve_raw() as elsewhere:
        target = elsewhere.url.removesuffix("/v1") + bench.paths[surface]
        for status in ("301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"):
            error, _ = await failed(bench, surface, [reply(b"", status, Location=target)])
            assert isinstance(error, EngineFailed)
        assert elsewhere.seen == []


@pytest.mark.parametrize("surface", [CHAT, TEXT])
@pytest.mark.parametrize("bench", ADAPTERS, ids=lambda bench: bench.name)
@pytest.mark.parametrize("ends", [True, False], ids=["one event", "no end"])
async def test_a_hundred_megabytes_are_not_collected(bench: Bench, surface: Surface, *, ends: bool) -> None:
    """An event of that size, or a line that never ends, is an error long before it is in memory."""
    piece = b"x" * MEGABYTE
    begin, end = bench.event(b'{"a":"|"}').split(b"|")
    packets = [bench.begun, begin, *[piece] * 100, *([end] if ends else [])]
    tracemalloc.start()
    try:
        error, _ = await failed(bench, surface, packets)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(error, EngineFailed)
    assert peak < MEMORY_BYTES_MAX
