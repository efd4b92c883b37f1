"""Answers that come in odd ways, through the whole box: what the client gets, and what is counted."""

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from quotas.ledger import Ledger
from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox
from tests.engines.raw_engine import STREAM_BEGUN, Raw, serve_raw
from tests.stand_ins.openai_engine import event, usage_event

CHAT: dict[str, Any] = {"model": "raw", "messages": [{"role": "user", "content": "hi"}]}
DONE = b"data: [DONE]\n\n"
WORDS = [event({"role": "assistant", "content": None}), *(event({"content": f" w{number}"}) for number in range(5))]
END = [event({}, "stop"), usage_event({"prompt_tokens": 7, "completion_tokens": 5})]
WHOLE = b"".join([*WORDS, *END, DONE])


async def ask(box: Box, someone: Person, *, is_stream: bool) -> tuple[int, str]:
    """The status, and the text or the error's code."""
    async with box.http(headers=someone.bearer) as client:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": is_stream})
    if not is_stream:
        body = answer.json()
        text = body["error"]["code"] if "error" in body else body["choices"][0]["message"]["content"]
        return answer.status_code, text
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.status_code, answer.json()["error"]["code"]
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line.startswith("data:")]
    last = events.pop()
    if last != "[DONE]":
        return answer.status_code, json.loads(last)["error"]["code"]
    deltas = [json.loads(text)["choices"][0]["delta"] for text in events]
    return answer.status_code, "".join(delta.get("content") or "" for delta in deltas)


async def box_of(make_box: MakeBox, settings: Settings, raw: Raw) -> Box:
    """A box in front of the raw engine."""
    return await make_box(replace(settings, engines=(raw.url,)))


WAYS = {
    "all at once": [WHOLE],
    "a byte at a time": [bytes([byte]) for byte in WHOLE[:300]] + [WHOLE[300:]],
    "CRLF": [WHOLE.replace(b"\n", b"\r\n")],
    "several in a packet": [b"".join(WORDS[:4]), b"".join(WORDS[4:]), b"".join(END), DONE],
    "with comments": [b": hello\n\n", *WORDS, b": ping\n\n", *END, DONE],
    "without an end mark": [*WORDS, *END],
    "cut in the end mark": [*WORDS, *END, DONE.rstrip()],
}


async def test_an_answer_is_the_same_however_it_comes(make_box: MakeBox, settings: Settings) -> None:
    """HTTP/1.0, tiny or huge packets, other line ends: one text, one row, the engine's counts."""
    async with serve_raw() as raw:
        box = await box_of(make_box, settings, raw)
        ann = await box.person("ann")
        for way, packets in WAYS.items():
            raw.answers["/v1/chat/completions"] = [STREAM_BEGUN, *packets]
            for is_stream in (True, False):
                assert await ask(box, ann, is_stream=is_stream) == (200, " w0 w1 w2 w3 w4"), way
        for row in await box.usage(2 * len(WAYS)):
            assert (row.outcome, row.input_tokens, row.output_tokens) == ("completed", 7, 5)


@pytest.mark.parametrize("is_stream", [True, False])
async def test_an_engine_that_forgets_to_hang_up_is_left(
    make_box: MakeBox, settings: Settings, is_stream: bool
) -> None:
    """After the last event nobody waits for the engine to close."""
    async with serve_raw(chat=[STREAM_BEGUN, WHOLE]) as raw:
        raw.hold.clear()
        box = await box_of(make_box, settings, raw)
        async with asyncio.timeout(settings.engine_silence_ms_max / 2000):
            assert (await ask(box, await box.person("ann"), is_stream=is_stream))[0] == 200
            await raw.gone.wait()


@pytest.mark.parametrize("is_stream", [True, False])
async def test_an_event_without_end_is_the_engines_fault(
    make_box: MakeBox, settings: Settings, is_stream: bool
) -> None:
    """Five megabytes in one event are not collected; what came before was counted."""
    async with serve_raw(chat=[STREAM_BEGUN, *WORDS, b"data: " + b"x" * 5_000_000, b"\n\n", *END, DONE]) as raw:
        box = await box_of(make_box, settings, raw)
        assert await ask(box, await box.person("ann"), is_stream=is_stream) == (
            200 if is_stream else 502,
            "engine_failed",
        )
        (row,) = await box.usage(1)
        assert (row.outcome, row.output_tokens) == ("failed", 5)


RUBBISH = [
    b"data: {half a thing\n\n",
    b"data: \xff\xfe\n\n",
    b"data: " + b"[" * 100_000 + b"\n\n",
    b'data: {"a":' + b"[" * 100_000 + b"\n\n",
    b"data: []\n\n",
    b"data: 7\n\n",
    b'data: {"choices":7}\n\n',
    b'data: {"choices":[7]}\n\n',
    b'data: {"choices":{"index":0}}\n\n',
    b'data: {"choices":[{"index":0,"delta":"text"}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":[7]}]}\n\n',
    b'data: {"choices":[{"index":[],"delta":{}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":[7]}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":7}}]}\n\n',
    b'data: {"object":[]}\n\n',
    b'data: {"object":{"a":1}}\n\n',
    b'data: {"usage":{"prompt_tokens":' + b"9" * 40 + b"}}\n\n",
]


async def test_events_that_are_none_never_are_our_mistake(make_box: MakeBox, settings: Settings) -> None:
    """Put together or passed on, rubbish among the events is an answer or the engine's fault, and the box goes on."""
    async with serve_raw() as raw:
        box = await box_of(make_box, settings, raw)
        ann = await box.person("ann")
        async with box.http(headers=ann.bearer) as client:
            for rubbish in RUBBISH:
                for packets in ([rubbish, *WORDS], [b"".join(WORDS[:3]), rubbish + WORDS[3], *WORDS[4:]]):
                    raw.answers["/v1/chat/completions"] = [STREAM_BEGUN, *packets, *END, DONE]
                    whole = await client.post("/v1/chat/completions", json=CHAT)
                    assert whole.status_code in {200, 502}, (packets, whole.text)
                    streamed = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
                    assert streamed.status_code in {200, 502}, (packets, streamed.text)
        rows = await box.usage(len(RUBBISH) * 4)
        assert {row.outcome for row in rows} == {"completed", "failed"}


async def test_silence_in_mid_stream_ends_the_stream(make_box: MakeBox, settings: Settings, ledger: Ledger) -> None:
    """The client learns it as the last event, the slot is free, and the engine let go."""
    async with serve_raw(chat=[STREAM_BEGUN, *WORDS]) as raw:
        raw.hold.clear()
        box = await box_of(make_box, replace(settings, engine_silence_ms_max=300), raw)
        assert await ask(box, await box.person("ann"), is_stream=True) == (200, "engine_timeout")
        async with asyncio.timeout(2):
            await raw.gone.wait()
        (row,) = await box.usage(1)
        assert (row.outcome, row.output_tokens) == ("failed", 5)
        assert await ledger.load(raw.url.split("/")[2]) == (0, 0)
