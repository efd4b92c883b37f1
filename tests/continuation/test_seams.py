"""Answers that are cut and go on, on a real llama.cpp: nothing is lost, nothing comes twice, nothing differs."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from server.chat.meter import Meter
from server.embedded.llama import Llama
from server.engines.continuation import Record, Splice
from server.engines.openai_compatible import OpenAICompatible
from server.engines.protocol import Reply
from server.messages import Surface, Written

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "the box"}]}
TEXT: dict[str, Any] = {"prompt": "the light is"}
TOKENS = 24


@pytest.fixture
async def engine(wandering: Llama) -> AsyncIterator[OpenAICompatible]:
    """Its adapter."""
    engine = OpenAICompatible(
        wandering.base_url, kind="llama-server", slots=2, silence_ms_max=60_000, api_key=wandering.api_key
    )
    yield engine
    await engine.close()


def asked(surface: Surface, **more: Any) -> dict[str, Any]:
    """A greedy request."""
    common = {"model": "w", "temperature": 0, "max_tokens": TOKENS, "stream": True}
    return {
        **(CHAT if surface == "chat.completions" else TEXT),
        **common,
        "stream_options": {"include_usage": True},
        **more,
    }


class Told:
    """What a client has got: text, usage, and why it ended."""

    def __init__(self) -> None:
        self.text = ""
        self.usage: dict[str, Any] = {}
        self.reasons: list[str] = []
        self.ids: set[str] = set()
        self.events = 0

    def take(self, events: bytes) -> None:
        """Whole events."""
        for event in events.split(b"\n\n"):
            text = event.removeprefix(b"data:").strip()
            if not text or text == b"[DONE]":
                continue
            message = msgspec.json.decode(text)
            self.ids.add(message["id"])
            self.usage = message.get("usage") or self.usage
            for choice in message["choices"]:
                said = choice.get("delta", {}).get("content") or choice.get("text") or ""
                assert "logprobs" not in choice or choice["logprobs"] is None
                self.text += said
                self.events += bool(said)
                self.reasons += [choice["finish_reason"]] if choice["finish_reason"] else []


async def whole(engine: OpenAICompatible, surface: Surface, body: dict[str, Any]) -> Told:
    """The answer without a pause."""
    told = Told()
    reply = await engine.open(surface, body, "whole", "salt")
    told.take(await reply.read())
    reply.close()
    return told


async def cut(engine: OpenAICompatible, surface: Surface, body: dict[str, Any], events: list[int]) -> tuple[Told, int]:
    """The answer, cut after so many events with text and again after so many more; and how often it was cut."""
    told, meter, record = Told(), Meter(shows_usage=True), Record()
    reply: Reply = await engine.open(surface, engine.traced(body), "first", "salt")
    splice: Splice | None = None
    cuts = 0
    while True:
        until = meter.events + events[cuts] if cuts < len(events) else -1
        async for piece in one_by_one(reply.chunks()):
            raw, clean = splice.feed(piece) if splice else (piece, engine.untraced(piece))
            record.keep(raw)
            if passed := meter.feed(clean):
                told.take(passed)
            if meter.events == until:
                break
        reply.close()
        if meter.is_complete:
            return told, cuts
        cuts += 1
        written: Written = record.written(meter.output_tokens)
        assert written.text == told.text
        reply, read = await engine.resume(surface, body, written, f"rest{cuts}", "salt")
        splice = Splice(record.envelope(), read)


async def one_by_one(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Single events, so that a test can cut between any two."""
    rest = b""
    async for chunk in chunks:
        *whole_events, rest = (rest + chunk).split(b"\n\n")
        for event in whole_events:
            yield event + b"\n\n"


@pytest.mark.parametrize("surface", ["chat.completions", "completions"])
async def test_an_answer_that_is_cut_anywhere_is_the_one_that_is_not(
    engine: OpenAICompatible, surface: Surface
) -> None:
    """At every event, also where letters come in several tokens: the same text, usage, reason, and one id."""
    await engine.probe()
    body = asked(surface)
    expected = await whole(engine, surface, body)
    assert any(ord(letter) > 0x7F for letter in expected.text)
    for at in range(1, expected.events):
        told, cuts = await cut(engine, surface, body, [at])
        assert (told.text, told.reasons, cuts) == (expected.text, expected.reasons, 1), at
        assert told.usage["prompt_tokens"] == expected.usage["prompt_tokens"]
        assert told.usage["completion_tokens"] == expected.usage["completion_tokens"], at
        assert len(told.ids) == 1


async def test_an_answer_that_is_cut_again_and_again_is_the_same(engine: OpenAICompatible) -> None:
    """After each event or two."""
    await engine.probe()
    body = asked("chat.completions")
    expected = await whole(engine, "chat.completions", body)
    told, cuts = await cut(engine, "chat.completions", body, [1, 2] * 6)
    assert cuts == 12
    assert (told.text, told.reasons) == (expected.text, expected.reasons)


async def test_a_stop_string_is_found_across_a_seam(engine: OpenAICompatible) -> None:
    """Wherever the answer is cut: what might begin a stop string was held back, and is written again."""
    await engine.probe()
    free = await whole(engine, "chat.completions", asked("chat.completions"))
    for length in (2, 5, 9):
        middle = len(free.text) // 2
        body = asked("chat.completions", stop=[free.text[middle : middle + length]])
        expected = await whole(engine, "chat.completions", body)
        assert expected.reasons == ["stop"]
        for at in range(1, expected.events):
            told, _ = await cut(engine, "chat.completions", body, [at])
            assert (told.text, told.reasons) == (expected.text, expected.reasons), (length, at)
