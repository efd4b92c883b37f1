"""Traces of answers that are interrupted: each time an engine is asked is a span, and so is each wait."""

import asyncio

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from server.settings import Settings
from tests.conftest import MakeBox
from tests.continuation.conftest import stage  # noqa: F401 (a fixture)
from tests.continuation.stage import Stage, is_whole, know, storytellers
from tests.stand_ins.otlp_collector import Collector, Taken
from tests.stand_ins.storyteller import HOLD, WORDS, asked

# ruff: noqa: F811 (fixtures are taken by their names)

ROOT = "POST /v1/chat/completions"


def _of_one(spans: list[Taken], outcome: str) -> list[Taken]:
    """The spans of the trace in which an engine's span ended so, in the order of their beginning."""
    (found,) = [span for span in spans if span.attributes.get("wirthforge.outcome") == outcome]
    return sorted((span for span in spans if span.trace == found.trace), key=lambda span: span.began_ns)


async def test_a_paused_answer_is_two_requests_and_two_waits(stage: Stage, collector: Collector) -> None:
    """The first request is cut, the second wait is as long as the pause, and each has the tokens of its own."""
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    told, guests = await stage.paused(hog, guest)
    stage.tellers["one"].go.set()
    await is_whole([*told, guests])
    await collector.until(lambda: sum(span.name == ROOT for span in collector.spans) == 3)
    spans = _of_one(collector.spans, "paused")
    root, wait, first, again, second = spans
    assert [span.name for span in spans] == [ROOT, "queue", first.name, "queue", first.name]
    assert {span.parent for span in spans[1:]} == {root.id}
    assert [span.attributes.get("wirthforge.pauses") for span in (wait, again)] == [None, 1]
    assert second.attributes["wirthforge.outcome"] == "completed"
    tokens = [span.attributes["gen_ai.usage.output_tokens"] for span in (first, second)]
    assert tokens[0] == 3
    assert sum(int(str(count)) for count in tokens) == WORDS
    assert first.ended_ns <= second.began_ns
    assert again.ended_ns <= second.began_ns
    assert not any(span.is_error for span in spans)


async def test_who_leaves_while_paused_leaves_a_wait(stage: Stage, collector: Collector) -> None:
    """The second wait ends, and nobody is asked again."""
    hog, guest = await stage.box.person("hog"), await stage.box.person("guest")
    told, guests = await stage.paused(hog, guest)
    told[0][1].cancel()
    await collector.until(lambda: any(span.name == ROOT for span in collector.spans))
    spans = _of_one(collector.spans, "paused")
    assert [span.name for span in spans].count("queue") == 2
    assert sum(span.kind == "client" for span in spans) == 1
    assert not any(span.is_error for span in spans)
    stage.tellers["one"].go.set()
    await is_whole([told[1], guests])


async def test_an_answer_that_moves_is_an_error_and_an_answer(
    make_box: MakeBox, settings: Settings, redis: Redis, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine that died has failed; the other has the rest, and the request is well."""
    monkeypatch.setattr("server.engines.pool.PROBE_EVERY_MS", 100)
    async with storytellers("one", "two") as (tellers, engines):
        box = await make_box(replace(settings, reserved_slots=0), engines=engines)
        await know(box, "one", "two")
        stage = Stage(box, tellers, redis)
        for teller in tellers.values():
            teller.begun.clear()
            teller.held_after = 3
        ann = await box.person("ann")
        heard, task = stage.hear(ann, asked(HOLD))
        await stage.until(lambda: "wörd2" in heard.text)
        first = next(name for name, teller in tellers.items() if teller.begun)
        other = "two" if first == "one" else "one"
        tellers[first].dies_after, tellers[other].held_after = 3, None
        tellers[first].go.set()
        async with asyncio.timeout(20):
            await task
        await collector.until(lambda: any(span.name == ROOT for span in collector.spans))
    spans = _of_one([span for span in collector.spans if "admin" not in span.name], "failed")
    asked_spans = [span for span in spans if span.kind == "client"]
    assert [span.attributes["wirthforge.engine"] for span in asked_spans] == [first, other]
    assert [span.is_error for span in asked_spans] == [True, False]
    assert not spans[0].is_error
