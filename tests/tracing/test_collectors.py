"""Collectors that are away, hang, or refuse: the server does not wait, tells it once, and sends when they are back."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import structlog
from msgspec.structs import replace
from structlog.typing import EventDict

from benchmarks.stage import free_port
from server.clock import SystemClock
from server.settings import Settings
from server.tracing.otlp import Traces
from server.tracing.spans import Span
from tests.boxes import Box, serve_box
from tests.conftest import MakeBox
from tests.stand_ins import otlp_collector
from tests.stand_ins.openai_engine import MODEL
from tests.stand_ins.otlp_collector import Collector

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
AWAY, BACK = "traces are lost: the collector does not take them", "the collector takes traces again"

clock = SystemClock()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector gets half a second."""
    monkeypatch.setattr("server.tracing.otlp.SEND_S_MAX", 0.5)
    monkeypatch.setattr("server.tracing.otlp.FLUSH_MS_MAX", 400)


@asynccontextmanager
async def open_traces(url: str) -> AsyncIterator[Traces]:
    """Traces until the block ends."""
    traces = Traces(url, percent=100, resource={"service.name": "test"}, clock=clock)
    try:
        yield traces
    finally:
        await traces.close()


@contextmanager
def logged() -> Iterator[list[EventDict]]:
    """What is logged by the block, in this thread and others."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def one(traces: Traces) -> Span:
    """A trace of one span."""
    span = traces.begin("GET /", {}, ())
    span.end()
    return span


async def until_logged(lines: list[EventDict], event: str) -> None:
    """Wait for a line, and go on making spans meanwhile."""
    async with asyncio.timeout(15):
        while not any(line["event"] == event for line in lines):
            await clock.sleep_ms(10)


def said(lines: list[EventDict], event: str) -> int:
    """How often."""
    return sum(line["event"] == event for line in lines)


@pytest.mark.parametrize("does", ["fail", "busy", "hang"])
async def test_a_collector_that_does_not_take_traces_is_told_of_once(collector: Collector, does: Any) -> None:
    """However many batches it is sent; and once more when it takes them again."""
    collector.does = does
    with logged() as lines:
        async with open_traces(collector.url) as traces:
            one(traces)
            await until_logged(lines, AWAY)
            for count in range(collector.batches + 1, collector.batches + 3):
                one(traces)
                await collector.until(lambda count=count: collector.batches >= count)  # type: ignore[misc]
            collector.does = "take"
            async with asyncio.timeout(15):
                while not said(lines, BACK):
                    one(traces)
                    await clock.sleep_ms(20)
    assert (said(lines, AWAY), said(lines, BACK)) == (1, 1)
    assert collector.spans


async def test_a_collector_that_comes_late_gets_what_comes_then() -> None:
    """Nobody listens at first; when somebody does, the next batch arrives."""
    port = free_port()
    with logged() as lines:
        async with open_traces(f"http://127.0.0.1:{port}") as traces:
            one(traces)
            await until_logged(lines, AWAY)
            async with otlp_collector.serve(port) as collector:
                span = one(traces)
                await collector.until(lambda: bool(collector.spans))
                assert span.headers["traceparent"].split("-")[1] in {each.trace for each in collector.spans}
    assert said(lines, AWAY) == 1


async def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> None:
    """While a collector hangs the oldest are dropped; a span costs the request nothing but itself."""
    monkeypatch.setattr("server.tracing.otlp.QUEUE_SPANS_MAX", 8)
    monkeypatch.setattr("server.tracing.otlp.BATCH_SPANS_MAX", 4)
    collector.does = "hang"
    async with open_traces(collector.url) as traces:
        one(traces)
        await collector.until(lambda: collector.batches == 1)
        for _ in range(1_000):
            one(traces)
        newest = one(traces)
        collector.does = "take"
        await collector.until(
            lambda: newest.headers["traceparent"].split("-")[1] in {each.trace for each in collector.spans}
        )
        await collector.until(lambda: len(collector.spans) >= 8)
    assert len(collector.spans) == 8


async def test_no_answer_waits_for_a_collector(
    make_box: MakeBox, settings: Settings, engine_url: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs for as long as it likes: whoever waited for it would wait longer than this client does."""
    monkeypatch.setattr("server.tracing.otlp.SEND_S_MAX", 600.0)
    collector.does = "hang"
    box: Box = await make_box(replace(settings, engines=(engine_url,)))
    ann = await box.person("ann")
    async with box.http(headers=ann.bearer) as client:
        for _ in range(10):
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
    await collector.until(lambda: collector.batches > 0)
    assert not collector.spans


async def test_the_last_traces_are_sent_before_the_server_ends(
    settings: Settings, engine_url: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that had not been sent are, when it is stopped."""
    monkeypatch.setattr("server.tracing.otlp.BATCH_MS", 60_000)
    async with serve_box(replace(settings, engines=(engine_url,))) as box:
        ann = await box.person("ann")
        async with box.http(headers=ann.bearer) as client:
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        assert not collector.spans
    assert [span.name for span in collector.spans if span.kind == "server"] == ["POST /v1/chat/completions"]


async def test_a_collector_that_hangs_does_not_keep_the_server_from_ending(
    settings: Settings, engine_url: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for as long as it may take, and no longer."""
    monkeypatch.setattr("server.tracing.otlp.SEND_S_MAX", 60.0)
    collector.does = "hang"
    with logged() as lines:
        async with serve_box(replace(settings, engines=(engine_url,))) as box:
            async with box.http() as client:
                await client.get("/v1/models")
            await collector.until(lambda: collector.batches == 1)
            stopped_ms = clock.monotonic_ms()
        assert clock.monotonic_ms() - stopped_ms < 5_000
    assert said(lines, "the last traces are lost: the collector takes too long") == 1
