"""Traces of what left the box: that it left, and nothing of it."""

import pytest
from msgspec.structs import replace

from server.privacy.sealed import new_key
from server.settings import Settings
from tests.cloud.boxes import LOOKER, PROVIDER, QUEUE_MAX, Sky
from tests.cloud.conftest import cloud, looker, quiet_sky, sky, soon, switches  # noqa: F401 (fixtures)
from tests.stand_ins import cloud_provider
from tests.stand_ins.cloud_provider import MODEL as FAR
from tests.stand_ins.openai_engine import MODEL
from tests.stand_ins.otlp_collector import Collector
from tests.tracing.conftest import only, tree

# ruff: noqa: F811 (fixtures are taken by their names)

ROOT, LEFT = "POST /v1/chat/completions", f"chat {FAR}"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A box that can keep keys of providers, whose engine is held for as long as a test likes."""
    return replace(settings, engine_silence_ms_max=60_000, encryption_key=new_key(), queue_length_max=QUEUE_MAX)


async def test_an_answer_of_a_cloud_is_a_span_of_its_own(sky: Sky, collector: Collector) -> None:
    """Beside the wait that it left; with the provider's counts. The looking model is there as any model is."""
    async with sky.full():
        answer = await sky.ask()
    assert answer.status_code == 200
    await sky.ended()
    request_id = answer.headers["x-request-id"]
    await collector.until(
        lambda: any(
            span.kind == "server" and span.attributes.get("wirthforge.request.id") == request_id
            for span in collector.spans
        )
    )
    root = next(
        span
        for span in collector.spans
        if span.kind == "server" and span.attributes.get("wirthforge.request.id") == request_id
    )
    spans = [span for span in collector.spans if span.trace == root.trace]
    assert set(tree(spans)[ROOT]) == {"queue", LEFT, f"chat {LOOKER}"}
    left = only(spans, LEFT)
    assert left.kind == "client"
    told = dict(left.attributes)
    assert float(str(told.pop("gen_ai.response.time_to_first_chunk"))) > 0
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": FAR,
        "gen_ai.request.stream": True,
        "gen_ai.response.model": FAR,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 4,
        "wirthforge.cloud": PROVIDER,
        "wirthforge.outcome": "completed",
        "wirthforge.request.id": request_id,
    }
    assert left.events == ("wirthforge.first_token",)
    assert not any(span.is_error for span in spans)
    assert f"chat {MODEL}" not in {span.name for span in spans}


async def test_a_provider_is_told_of_no_trace(sky: Sky) -> None:
    """What leaves is what was decided on: no header of ours goes along."""
    async with sky.full():
        await sky.ask(headers={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
    assert sky.cloud.received
    for word in (b"traceparent", b"4bf92f3577b34da6a3ce929d0e0e4736", b"tracestate", b"baggage"):
        assert word not in sky.cloud.received.lower()


async def test_a_provider_that_breaks_off_is_an_error(sky: Sky, collector: Collector) -> None:
    """By the ledger's word for it."""
    sky.cloud.behaviour = cloud_provider.breaking_off(2)
    async with sky.full(), sky.asking() as response:
        await response.aread()
    await collector.until(lambda: any(span.name == LEFT for span in collector.spans))
    left = only(collector.spans, LEFT)
    assert (left.is_error, left.attributes["error.type"]) == (True, "broken_off")
    assert left.message == ""


async def test_what_stayed_is_in_no_span(sky: Sky, collector: Collector) -> None:
    """Where nothing was sent there is no span of a sending, whatever was decided."""
    await sky.ann_says(mode="never")
    async with sky.full(), sky.crowded():
        refused = await sky.ask()
        assert refused.status_code == 503
    await collector.until(lambda: len([span for span in collector.spans if span.name == ROOT]) > QUEUE_MAX)
    assert sky.is_silent
    assert LEFT not in {span.name for span in collector.spans}
