"""A stand-in for an OpenTelemetry collector: takes OTLP over HTTP as protobuf, and can be told to misbehave.

It speaks the real wire format over a real socket (POST /v1/traces, gzip, ExportTraceServiceRequest as of
opentelemetry-proto 1.45), and keeps every byte that it was sent.
"""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire
from opentelemetry.proto.trace.v1.trace_pb2 import Status

WITHIN_MS = 15_000

Value = str | bool | int | float | list[str]
KINDS = {Wire.SPAN_KIND_SERVER: "server", Wire.SPAN_KIND_CLIENT: "client", Wire.SPAN_KIND_INTERNAL: "internal"}


@dataclass(frozen=True)
class Taken:
    """A span as it came.

    Attributes:
        parent: the id of the span that it is a part of; empty for none.
        events: their names.
    """

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: Mapping[str, Value]
    events: tuple[str, ...]
    is_error: bool
    message: str
    state: str
    began_ns: int
    ended_ns: int


@dataclass
class Collector:
    """What it was sent, and what it does.

    Attributes:
        does: `take`; `fail` answers 500; `busy` answers 503; `hang` never answers.
        received: the bodies, decompressed.
        batches: how many came, also those that it did not take.
        resource: of the last batch.
    """

    url: str = ""
    does: Literal["take", "fail", "busy", "hang"] = "take"
    spans: list[Taken] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    resource: Mapping[str, Value] = field(default_factory=dict)
    scope: tuple[str, str, str] = ("", "", "")
    batches: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, is_there: Callable[[], bool], within_ms: int = WITHIN_MS) -> None:
        """Wait until that is so after some batch."""
        async with asyncio.timeout(within_ms / 1000), self._changed:
            await self._changed.wait_for(is_there)

    async def trace(self, root: str = "", count: int = 1) -> list[Taken]:
        """The spans of the newest trace whose server's span is called so, when it and `count` in all have come."""

        def found() -> list[Taken]:
            roots = [span for span in self.spans if span.kind == "server" and root in span.name]
            return [span for span in self.spans if roots and span.trace == roots[-1].trace]

        await self.until(lambda: len(found()) >= count)
        return found()

    async def take(self, request: web.Request) -> web.Response:
        """POST /v1/traces."""
        body = await request.read()
        assert request.content_type == "application/x-protobuf"
        if request.headers.get("Content-Encoding") == "gzip":
            # aiohttp has inflated it already where it could.
            body = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        self.batches += 1
        async with self._changed:
            self._changed.notify_all()
        if self.does == "hang":
            await asyncio.Event().wait()
        if self.does != "take":
            return web.Response(status=500 if self.does == "fail" else 503)
        told = ExportTraceServiceRequest.FromString(body)
        self.received.append(body)
        self.headers.append(request.headers.copy())
        for resource in told.resource_spans:
            self.resource = _values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.scope = (scope.scope.name, scope.scope.version, scope.schema_url)
                self.spans.extend(_taken(span) for span in scope.spans)
        async with self._changed:
            self._changed.notify_all()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


@asynccontextmanager
async def serve(port: int = 0, collector: Collector | None = None) -> AsyncIterator[Collector]:
    """Run one, on a free port unless one is named."""
    collector = collector or Collector()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    collector.url = "http://{}:{}".format(*runner.addresses[0][:2])
    try:
        yield collector
    finally:
        await runner.cleanup()


def _taken(span: Wire) -> Taken:
    return Taken(
        name=span.name,
        kind=KINDS[span.kind],
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        attributes=_values(span.attributes),
        events=tuple(event.name for event in span.events),
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        message=span.status.message,
        state=span.trace_state,
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
    )


def _values(attributes: Sequence[KeyValue]) -> Mapping[str, Value]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: AnyValue) -> Value:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "array_value":
            return [each.string_value for each in value.array_value.values]
        case other:
            raise AssertionError(f"no attribute of ours is {other}")
