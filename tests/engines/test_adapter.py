"""The adapter: what an engine may send, and what becomes of it."""

import gzip
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from server.engines.openai_compatible import OpenAICompatible
from server.errors import EngineFailed, EngineTimeout, InvalidRequest, WirthforgeError
from tests.engines.raw_engine import MODELS, STREAM_BEGUN, reply, serve_raw

CHAT: dict[str, Any] = {"model": "raw", "messages": [{"role": "user", "content": "secret-prompt"}], "stream": True}
KEY = "sk-of-this-engine"
MakeEngine = Callable[..., OpenAICompatible]


@pytest.fixture
async def engine_at() -> AsyncIterator[MakeEngine]:
    """Makes adapters that are closed after the test."""
    async with AsyncExitStack() as stack:

        def make(url: str, **options: Any) -> OpenAICompatible:
            defaults = {"slots": 3, "silence_ms_max": 300, "api_key": KEY}
            engine = OpenAICompatible(url, **{**defaults, **options})
            stack.push_async_callback(engine.close)
            return engine

        yield make


def packets(data: bytes, size: int) -> list[bytes]:
    """The bytes in pieces."""
    return [data[start : start + size] for start in range(0, len(data), size)]


async def test_a_long_list_that_comes_in_pieces_is_read_to_its_end(engine_at: MakeEngine) -> None:
    """Models and slots are known however many packets they come in."""
    models = json.dumps({"data": [{"id": f"m{number}", "x": "y" * 200} for number in range(500)]}).encode()
    props = json.dumps({"chat_template": "x" * 20_000, "total_slots": 7}).encode()
    async with serve_raw(models=packets(reply(models), 10_000), props=packets(reply(props), 5_000)) as raw:
        engine = engine_at(raw.url)
        assert len(await engine.probe()) == 500
        assert engine.slots == 7


@pytest.mark.parametrize(
    "body",
    [
        b"<html>It works!</html>",
        b"",
        b"\xff\xfe",
        b'{"data":[{"id":"\xff"}]}',
        b'{"data":[{"id":7}]}',
        b'{"data":{}}',
        b"[]",
        b"[" * 200_000,
        b'{"data":[{"id":"m","meta":' + b'{"a":' * 100_000,
        b'{"data":[{"id":"\\ud800"}]}',
        b'{"data":[{"id":"a\\u0000b"}]}',
    ],
)
async def test_a_model_list_that_is_none_is_the_engines_fault(engine_at: MakeEngine, body: bytes) -> None:
    """Whatever stands where the models should stand, the probe fails in one way only."""
    async with serve_raw(models=[reply(body)]) as raw:
        with pytest.raises(EngineFailed, match="OpenAI"):
            await engine_at(raw.url).probe()


@pytest.mark.parametrize(
    "body", [b"<html>", b"\xff", b"[" * 200_000, b"[]", b'{"total_slots":-1}', b'{"total_slots":true}', b"1e999"]
)
async def test_slots_that_are_none_are_not_believed(engine_at: MakeEngine, body: bytes) -> None:
    """Rubbish beside the model list leaves the slots as they were set."""
    async with serve_raw(props=[reply(body)]) as raw:
        engine = engine_at(raw.url)
        assert [model.id for model in await engine.probe()] == ["raw"]
        assert engine.slots == 3


@pytest.mark.parametrize("context", ["-1", "true", '"8k"', "0"])
async def test_a_context_that_is_none_is_not_believed(engine_at: MakeEngine, context: str) -> None:
    """A model whose context cannot be understood is served without that limit."""
    body = f'{{"data":[{{"id":"raw","meta":{{"n_ctx":{context}}}}}]}}'.encode()
    async with serve_raw(models=[reply(body)]) as raw:
        (model,) = await engine_at(raw.url).probe()
        assert model.context_tokens is None


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_a_redirect_is_not_followed(engine_at: MakeEngine, status: str) -> None:
    """Neither the prompt nor the engine's key go to where an engine points."""
    async with serve_raw() as elsewhere:
        away = reply(b"", status, Location=f"{elsewhere.url}/chat/completions")
        list_away = reply(b"", status, Location=f"{elsewhere.url}/models")
        async with serve_raw(models=[list_away], chat=[away]) as raw:
            engine = engine_at(raw.url)
            with pytest.raises(EngineFailed, match=status[:3]):
                await engine.probe()
            with pytest.raises(EngineFailed, match=status[:3]):
                await engine.open("chat.completions", CHAT, "id", "salt")
        assert elsewhere.seen == []


async def test_a_compressed_answer_is_read(engine_at: MakeEngine) -> None:
    """Compression is not asked for, and undone where a proxy compresses all the same."""
    squeezed = gzip.compress(b'{"data":[{"id":"raw"}]}')
    answer = reply(gzip.compress(b'{"ok":1}'), Content_Encoding="gzip")
    async with serve_raw(models=[reply(squeezed, Content_Encoding="gzip")], embeddings=[answer]) as raw:
        engine = engine_at(raw.url)
        assert len(await engine.probe()) == 1
        opened = await engine.open("embeddings", {}, "id", "salt")
        assert await opened.read() == b'{"ok":1}'
        opened.close()
        assert all("gzip" not in head for head, _ in raw.seen)


async def test_rubbish_that_claims_to_be_compressed_is_the_engines_fault(engine_at: MakeEngine) -> None:
    """A body that cannot be decompressed is no exception of another kind."""
    broken = reply(b"no gzip at all", Content_Encoding="gzip")
    async with serve_raw(models=[broken], embeddings=[broken]) as raw:
        engine = engine_at(raw.url)
        with pytest.raises(EngineFailed):
            await engine.probe()
        opened = await engine.open("embeddings", {}, "id", "salt")
        with pytest.raises(EngineFailed):
            await opened.read()
        opened.close()


async def test_a_refusal_in_pieces_is_still_told(engine_at: MakeEngine) -> None:
    """The engine's sentence reaches the caller also when it comes after its headers."""
    body = json.dumps({"error": {"message": "too long for this context"}}).encode()
    async with serve_raw(chat=packets(reply(body, "400 Bad Request"), 60)) as raw:
        with pytest.raises(InvalidRequest, match="too long for this context") as caught:
            await engine_at(raw.url).open("chat.completions", CHAT, "id", "salt")
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("body", [b"\xff\xff", b"[" * 60_000, b'{"error":{"message":7}}', b"x" * 200_000])
async def test_a_refusal_that_cannot_be_read_is_a_refusal(engine_at: MakeEngine, body: bytes) -> None:
    """Any body may come with a 400."""
    async with serve_raw(chat=[reply(body, "400 Bad Request")]) as raw:
        with pytest.raises(InvalidRequest, match="refuses the request"):
            await engine_at(raw.url).open("chat.completions", CHAT, "id", "salt")


async def test_an_engine_that_says_nothing_has_failed(engine_at: MakeEngine) -> None:
    """Before its headers, and in the middle of its answer."""
    async with serve_raw(chat=[b""]) as raw:
        raw.hold.clear()
        with pytest.raises(EngineTimeout):
            await engine_at(raw.url).open("chat.completions", CHAT, "id", "salt")
    async with serve_raw(chat=[STREAM_BEGUN, b"data: {}\n\n"]) as raw:
        raw.hold.clear()
        opened = await engine_at(raw.url).open("chat.completions", CHAT, "id", "salt")
        chunks = opened.chunks()
        assert await anext(chunks) == b"data: {}\n\n"
        with pytest.raises(EngineTimeout):
            await anext(chunks)
        opened.close()


async def test_a_machine_that_does_not_take_the_call_cannot_be_reached(
    engine_at: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is never accepted is told as such, not as silence."""
    monkeypatch.setattr("server.engines.openai_compatible.CONNECT_MS_MAX", 200)
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for caller in (first, second):  # they fill the backlog
            caller.setblocking(False)  # noqa: FBT003 (the standard library's signature)
            caller.connect_ex(deaf.getsockname())
        engine = engine_at(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1")
        with pytest.raises(EngineFailed, match="cannot be reached"):
            await engine.open("chat.completions", CHAT, "id", "salt")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff\x00",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 999999 What\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 99_999,
    ],
)
async def test_what_is_no_http_is_the_engines_fault(engine_at: MakeEngine, answer: bytes) -> None:
    """A port where something else listens is an engine that failed."""
    async with serve_raw(models=[answer], chat=[answer]) as raw:
        engine = engine_at(raw.url)
        with pytest.raises(EngineFailed):
            await engine.probe()
        with pytest.raises(WirthforgeError):
            await engine.open("chat.completions", CHAT, "id", "salt")


async def test_cookies_are_not_kept(engine_at: MakeEngine) -> None:
    """What an engine sets for one request is not sent with the next one, which may be another person's."""
    url = ""
    async with serve_raw(models=[reply(b'{"data":[]}', Set_Cookie="who=ann; Path=/")]) as raw:
        url = raw.url.replace("127.0.0.1", "localhost")
        engine = engine_at(url)
        await engine.probe()
        await engine.probe()
        assert all("who=ann" not in head for head, _ in raw.seen)


def test_engines_of_one_machine_have_names_of_their_own() -> None:
    """A name tells host, port and path, and never a password."""
    names = [
        OpenAICompatible(url, slots=1, silence_ms_max=1).name
        for url in ("http://box:8080/v1", "http://me:secret@box/a/v1/", "http://box/b/v1", "https://api.example/openai")
    ]
    assert names == ["box:8080", "box/a", "box/b", "api.example/openai"]


async def test_the_key_is_sent(engine_at: MakeEngine) -> None:
    """Every request carries the engine's key."""
    async with serve_raw(models=[MODELS]) as raw:
        await engine_at(raw.url).probe()
        assert all(f"Bearer {KEY}" in head for head, _ in raw.seen)
