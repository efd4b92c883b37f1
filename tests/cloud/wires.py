"""Providers and requests for tests, without a registry."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from server.chat.meter import Meter
from server.clock import Clock, SystemClock
from server.cloud.client import Client, Waits, Wire
from server.cloud.protocol import CloudModel, Kind, Provider
from server.cloud.providers import ADAPTERS
from server.messages import ModelRequest
from tests.stand_ins.cloud_provider import MODEL

KEY = "sk-key-of-a-provider"
# Enough for a loopback on a busy machine, where something is to come.
PATIENT = Waits()
# Where nothing is to come.
HASTY = Waits(first_byte_ms=150, silence_ms=150)
LARGE = CloudModel(
    name=MODEL,
    stands_in_for=("*",),
    input_micros_per_million=3_000_000,
    output_micros_per_million=15_000_000,
    output_tokens_max=1000,
)
HELLO: dict[str, Any] = {"model": "local", "messages": [{"role": "user", "content": "hi"}]}
REQUEST_ID = "0199ab00-0000-7000-8000-000000000001"


def request(body: dict[str, Any], input_tokens: int = 10) -> ModelRequest:
    """One, as the edge makes it."""
    return ModelRequest(
        id=UUID(REQUEST_ID),
        surface="chat.completions",
        model="local",
        body=body,
        is_stream=True,
        wants_usage=True,
        input_tokens=input_tokens,
        longest_input_tokens=input_tokens,
    )


@asynccontextmanager
async def provider(
    url: str, kind: Kind = "openai", *, waits: Waits = PATIENT, clock: Clock | None = None
) -> AsyncIterator[Provider]:
    """One that speaks to a URL."""
    wire = Wire()
    adapter = ADAPTERS[kind]
    client = Client("far", url, adapter.headers(KEY), wire=wire, clock=clock or SystemClock(), waits=waits)
    yield adapter(client)
    await wire.close()


def composed(far: Provider, model: CloudModel = LARGE, **fields: Any) -> dict[str, Any]:
    """What leaves of a request with these fields, read."""
    body = HELLO | fields
    told: dict[str, Any] = json.loads(far.compose(request(body), body, model))
    return told


async def ask(far: Provider, **fields: Any) -> bytes:
    """All events of an answer."""
    body = HELLO | fields
    reply = await far.send(far.compose(request(body), body, LARGE), request_id=REQUEST_ID)
    try:
        return await reply.read()
    finally:
        reply.close()


def told(events: bytes) -> list[dict[str, Any]]:
    """The objects of an event stream, which is whole and such as the meter takes."""
    meter = Meter(shows_usage=True)
    assert meter.feed(events) == events
    assert meter.fault is None
    assert meter.end() == b""
    assert events.endswith(b"data: [DONE]\n\n")
    return [json.loads(event.removeprefix(b"data: ")) for event in events.split(b"\n\n")[:-2]]


def said(events: bytes, name: str = "content") -> str:
    """The text of an answer."""
    deltas = [choice["delta"] for chunk in told(events) for choice in chunk["choices"]]
    return "".join(delta.get(name) or "" for delta in deltas)
