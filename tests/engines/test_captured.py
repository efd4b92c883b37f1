"""What real engines were heard to say (docs/engines.md, "Tried for real"), byte for byte but for ids and names."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.chat.meter import Meter
from server.engines.openai_compatible import OpenAICompatible
from server.errors import InvalidRequest, NotFound
from server.messages import Surface
from tests.engines.raw_engine import STREAM_BEGUN, Raw, reply, serve_raw

CHAT: dict[str, Any] = {"model": "raw", "messages": [{"role": "user", "content": "hi"}], "stream": True}
# transformers 5.19: no end mark, and the usage in the event that tells why it ended.
TRANSFORMERS_EVENT = (
    b'data: {"id":"318ef2ae","choices":[{"delta":{%s},"index":0%s}],"created":1795443387,"model":"tiny@main",'
    b'"object":"chat.completion.chunk","system_fingerprint":""%s}\n\n'
)
TRANSFORMERS = (
    TRANSFORMERS_EVENT % (b'"role":"assistant"', b"", b""),
    TRANSFORMERS_EVENT % (b'"content":"ory"', b"", b""),
    TRANSFORMERS_EVENT % (b'"content":" not"', b"", b""),
    TRANSFORMERS_EVENT
    % (b"", b',"finish_reason":"length"', b',"usage":{"completion_tokens":2,"prompt_tokens":6,"total_tokens":8}'),
)
TRANSFORMERS_MODELS = (
    b'{"object":"list","data":[{"owned_by":"local","id":"raw","object":"model","created":1795443417.8656163}]}'
)
# vLLM 0.32.
VLLM_TOO_LONG = {
    "prompt": b'{"error":{"message":"This model\'s maximum context length is 2048 tokens. However, your prompt '
    b"contains at least 2049 input tokens, which exceeds this limit even without any output tokens. Please reduce "
    b'the length of the input prompt. (parameter=input_tokens, value=2049)","type":"BadRequestError",'
    b'"param":"input_tokens","code":400}}',
    "answer": b'{"error":{"message":"max_tokens=9999 cannot be greater than max_model_len=2048. Please request fewer '
    b'output tokens. (parameter=max_tokens, value=9999)","type":"BadRequestError","param":"max_tokens","code":400}}',
}


@asynccontextmanager
async def engine_that_says(surface: str, packets: Sequence[bytes]) -> AsyncIterator[tuple[OpenAICompatible, Raw]]:
    """An adapter, and the engine that answers it with these bytes."""
    async with serve_raw(models=[reply(TRANSFORMERS_MODELS)], **{surface: packets}) as raw:
        engine = OpenAICompatible(raw.url, slots=1, silence_ms_max=2_000)
        await engine.probe()
        try:
            yield engine, raw
        finally:
            await engine.close()


async def test_a_stream_of_transformers_ends_as_it_should() -> None:
    """Without an end mark; the client gets one, and what was used is known."""
    async with engine_that_says("chat", [STREAM_BEGUN, *TRANSFORMERS]) as (engine, _):
        opened = await engine.open("chat.completions", CHAT, "id", "salt")
        meter = Meter(shows_usage=False)
        text = b"".join([meter.feed(chunk) async for chunk in opened.chunks()]) + meter.end()
        opened.close()
    assert text == b"".join(TRANSFORMERS) + b"data: [DONE]\n\n"
    assert (meter.is_complete, meter.input_tokens, meter.output_tokens) == (True, 6, 2)


@pytest.mark.parametrize("what", VLLM_TOO_LONG)
async def test_what_is_too_long_for_vllm_is_called_so(what: str) -> None:
    """A prompt or an answer: one code, which clients know, and vLLM's own sentence."""
    answer = reply(VLLM_TOO_LONG[what], "400 Bad Request")
    async with engine_that_says("chat", [answer]) as (engine, _):
        with pytest.raises(InvalidRequest, match="2048") as caught:
            await engine.open("chat.completions", CHAT, "id", "salt")
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(("surface", "path"), [("chat.completions", "chat"), ("embeddings", "embeddings")])
async def test_a_route_that_an_engine_lacks_is_said_to_be_the_engines(surface: Surface, path: str) -> None:
    """FastAPI's `Not Found` would be read as this server's; the engine is named."""
    answer = reply(b'{"detail":"Not Found"}', "404 Not Found")
    async with engine_that_says(path, [answer]) as (engine, _):
        with pytest.raises(NotFound, match="cannot do this") as caught:
            await engine.open(surface, {"model": "raw"}, "id", "salt")
    assert engine.name in caught.value.message


BOUNDS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("openai", {"max_completion_tokens": 3}, {"max_completion_tokens": 3, "max_tokens": 3}),
    ("openai", {"max_completion_tokens": 3, "max_tokens": 9}, {"max_completion_tokens": 3, "max_tokens": 3}),
    ("openai", {"max_tokens": 9}, {"max_tokens": 9}),
    ("openai", {"max_completion_tokens": None}, {"max_completion_tokens": None}),
    ("vllm", {"max_completion_tokens": 3}, {"max_completion_tokens": 3}),
]


@pytest.mark.parametrize(("kind", "asked", "told"), BOUNDS)
async def test_an_answer_has_its_bound_for_engines_that_know_the_older_name_only(
    kind: str, asked: dict[str, Any], told: dict[str, Any]
) -> None:
    """The model of transformers goes on to the end of its context when it is told `max_completion_tokens` alone."""
    async with serve_raw(chat=[STREAM_BEGUN, *TRANSFORMERS]) as raw:
        engine = OpenAICompatible(raw.url, kind=kind, slots=1, silence_ms_max=2_000)
        (await engine.open("chat.completions", CHAT | asked, "id", "salt")).close()
        await engine.close()
        ((_, sent),) = raw.seen
    body = json.loads(sent)
    assert {name: body[name] for name in body if name.startswith("max_")} == told


async def test_a_model_that_is_listed_twice_is_one() -> None:
    """The list of models may name it again; nobody else's shows it twice."""
    twice = b'{"object":"list","data":[{"id":"m","max_model_len":8},{"id":"n"},{"id":"m","max_model_len":8}]}'
    async with serve_raw(models=[reply(twice)]) as raw:
        engine = OpenAICompatible(raw.url, slots=1, silence_ms_max=2_000)
        models = await engine.probe()
        await engine.close()
    assert [(model.id, model.context_tokens) for model in models] == [("m", 8), ("n", None)]
