"""Without `traces_url` there are no traces, and nothing that makes or sends them."""

import asyncio
import sys

import pytest
from msgspec.structs import replace

from server.app import create_app
from server.errors import StartError
from server.settings import Settings
from server.tracing.otlp import endpoint_of
from server.tracing.spans import NOTHING, current
from tests.boxes import Box
from tests.stand_ins.openai_engine import MODEL, Order

# redis-py imports OpenTelemetry's metrics by itself where they are installed.
PARTS = (
    "opentelemetry.sdk.trace",
    "opentelemetry.exporter",
    "opentelemetry.proto",
    "google.protobuf",
    "server.tracing.otlp",
)
LOADED = f"import sys, server.cli, server.app; print([name for name in {PARTS} if name in sys.modules])"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """As they are by default."""
    return replace(settings, traces_url="")


async def test_nothing_that_makes_traces_is_imported() -> None:
    """Neither the SDK's traces nor the exporter, where nobody asks for them."""
    running = await asyncio.create_subprocess_exec(sys.executable, "-c", LOADED, stdout=asyncio.subprocess.PIPE)
    told, _ = await running.communicate()
    assert running.returncode == 0
    assert told.strip() == b"[]"


async def test_an_engine_hears_of_no_trace(box: Box, order: Order) -> None:
    """No `traceparent` is sent, not even the caller's: a trace with a hole in it would mislead."""
    ann = await box.person("ann")
    headers = {**ann.bearer, "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    async with box.http(headers=headers) as client:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    assert "traceparent" not in {name.lower() for name in order.headers[0]}


def test_nothing_has_nothing() -> None:
    """What hangs on no trace is none, at any depth, and keeps nothing."""
    assert current() is NOTHING
    with NOTHING.within(), current().child("chat").child("queue") as span:
        span.note("wirthforge.engine", "lab")
        span.mark("wirthforge.first_token")
        span.fail("engine_failed")
        assert span is NOTHING
    assert (dict(span.headers), span.age_s, span.is_on) == ({}, 0.0, False)


@pytest.mark.parametrize("url", ["collector:4318", "grpc://collector:4317", "http://", "4318"])
def test_what_is_no_address_is_refused_at_the_start(settings: Settings, url: str) -> None:
    """With a sentence, and not when the first request comes."""
    with pytest.raises(StartError, match="traces_url"):
        create_app(replace(settings, traces_url=url), [])


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://otlp.example/tenant", "https://otlp.example/tenant/v1/traces"),
        ("https://otlp.example/tenant/v1/traces/", "https://otlp.example/tenant/v1/traces"),
    ],
)
def test_traces_go_where_otlp_has_them(url: str, endpoint: str) -> None:
    """The path of the protocol is added, unless it is there."""
    assert endpoint_of(url) == endpoint
