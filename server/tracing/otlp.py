"""Traces as OpenTelemetry has them, sent to a collector as OTLP over HTTP. The only module that imports OpenTelemetry.

A span that has ended goes into a queue, and a thread of its own sends what is there every five seconds. Nobody waits:
where the collector is away, hangs or answers with faults, a batch is tried for SEND_S_MAX, then lost, and the queue
drops its oldest spans meanwhile. The log says once that it is away and once that it is back. The server's end waits for
the rest for at most FLUSH_MS_MAX; the thread is a daemon, so nothing else waits either.

Nothing of the process is used by more than one: no global provider, no context but our own variable (spans.py), no
proxy from the environment, no redirects. What a collector asks for beyond an address comes from the exporter's own
variables: OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_RESOURCE_ATTRIBUTES.

Written for opentelemetry-sdk 1.45.
"""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import requests
import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.clock import Clock
from server.deadline import first_of
from server.errors import StartError
from server.tracing.names import ERROR_TYPE, SCHEMA_URL, error_type
from server.tracing.spans import Attributes, Kind, Span, Value

QUEUE_SPANS_MAX = 4096
BATCH_SPANS_MAX = 512
BATCH_MS = 5_000
SEND_S_MAX = 5.0
FLUSH_MS_MAX = 3_000
PATH = "/v1/traces"
KINDS: Mapping[Kind, SpanKind] = {
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "internal": SpanKind.INTERNAL,
}

log = structlog.get_logger(__name__)


def endpoint_of(url: str) -> str:
    """Where a collector at `url` takes traces. Raises StartError where it is no address."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise StartError("The setting traces_url is wrong: it is written as http://collector:4318.")
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(PATH) else path + PATH, fragment="").geturl()


class Traces:
    """What begins traces, and sends them. Starts its thread at once.

    Args:
        percent: of the requests whose caller does not say whether they are traced.
        resource: what all spans are of: `service.name` and the like.
    """

    def __init__(self, url: str, *, percent: int, resource: Mapping[str, str], clock: Clock) -> None:
        self._clock = clock
        # They would tell of every batch, at length; Telling tells once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        session = requests.Session()
        session.trust_env = False
        session.max_redirects = 0
        exporter = OTLPSpanExporter(endpoint_of(url), timeout=SEND_S_MAX, compression=Compression.Gzip, session=session)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(percent / 100)),
            resource=Resource.create(dict(resource)),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                Telling(exporter, urlsplit(url).hostname or ""),
                max_queue_size=QUEUE_SPANS_MAX,
                schedule_delay_millis=BATCH_MS,
                max_export_batch_size=BATCH_SPANS_MAX,
            )
        )
        self._tracer = self._provider.get_tracer("wirthforge", resource.get("service.version"), schema_url=SCHEMA_URL)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, name: str, attributes: Attributes, traceparents: Sequence[str]) -> Span:
        """The span of a request that has come in.

        Args:
            traceparents: every header of this name; W3C knows one, and where there are more none is believed.
        """
        # Never with `tracestate`: its text would go to the collector.
        carrier = {"traceparent": traceparents[0]} if len(traceparents) == 1 else {}
        context = self._propagator.extract(carrier, Context())
        return _begun(self._tracer, context, name, "server", attributes, self._clock)

    async def close(self) -> None:
        """Send what is left, as far as FLUSH_MS_MAX reaches."""
        loop, is_over = asyncio.get_running_loop(), asyncio.Event()
        ending = threading.Thread(target=_ended, args=(self._provider, loop, is_over), name="traces-end", daemon=True)
        ending.start()
        waiting = asyncio.ensure_future(is_over.wait())
        if not await first_of(waiting, self._clock, FLUSH_MS_MAX):
            waiting.cancel()
            log.warning("the last traces are lost: the collector takes too long")


def _ended(provider: TracerProvider, loop: asyncio.AbstractEventLoop, is_over: asyncio.Event) -> None:
    provider.shutdown()
    try:
        loop.call_soon_threadsafe(is_over.set)
    except RuntimeError:
        return  # nobody waits any more


class Telling(SpanExporter):
    """Exports, and tells the log when that stops to work and when it works again."""

    def __init__(self, exporter: SpanExporter, collector: str) -> None:
        self._exporter = exporter
        self._collector = collector
        self._lost_spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, for SEND_S_MAX at most."""
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            if not self._lost_spans:
                log.warning("traces are lost: the collector does not take them", collector=self._collector)
            self._lost_spans += len(spans)
        elif self._lost_spans:
            log.info("the collector takes traces again", collector=self._collector, lost_spans=self._lost_spans)
            self._lost_spans = 0
        return result

    def shutdown(self) -> None:
        """Stop trying."""
        self._exporter.shutdown()


class Recorded(Span):
    """A span that is kept, and sent when it has ended."""

    __slots__ = ("_began_us", "_clock", "_is_over", "_span", "_tracer")
    is_on = True

    def __init__(self, span: OtelSpan, tracer: Tracer, clock: Clock) -> None:
        self._span = span
        self._tracer = tracer
        self._clock = clock
        self._began_us = clock.monotonic_us()
        self._is_over = False

    def child(self, name: str, kind: Kind = "internal", attributes: Attributes | None = None) -> Span:
        """See Span."""
        context = set_span_in_context(self._span, Context())
        return _begun(self._tracer, context, name, kind, attributes, self._clock)

    def past(self, name: str, took_ms: int, attributes: Attributes | None = None) -> None:
        """See Span."""
        now_ns = int(self._clock.now().timestamp() * 1_000_000) * 1_000
        context = set_span_in_context(self._span, Context())
        began_ns = now_ns - took_ms * 1_000_000
        self._tracer.start_span(name, context, attributes=attributes, start_time=began_ns).end(now_ns)

    def note(self, name: str, value: Value) -> None:
        """See Span."""
        if not self._is_over:
            self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        """See Span."""
        if not self._is_over:
            self._span.update_name(name)

    def mark(self, name: str) -> None:
        """See Span."""
        if not self._is_over:
            self._span.add_event(name)

    def fail(self, code: str) -> None:
        """See Span. Without a description, which could quote somebody."""
        if not self._is_over:
            self._span.set_attribute(ERROR_TYPE, error_type(code))
            self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        """See Span."""
        if not self._is_over:
            self._is_over = True
            self._span.end()

    @property
    def age_s(self) -> float:
        """See Span."""
        return (self._clock.monotonic_us() - self._began_us) / 1_000_000

    @property
    def headers(self) -> Mapping[str, str]:
        """See Span."""
        return _headers(self._span)


class Passed(Span):
    """A span of a request that is not traced. Those who work for it hear that they need not trace it either."""

    __slots__ = ("_span",)

    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    @property
    def headers(self) -> Mapping[str, str]:
        """See Span."""
        return _headers(self._span)


def _begun(
    tracer: Tracer, context: Context, name: str, kind: Kind, attributes: Attributes | None, clock: Clock
) -> Span:
    span = tracer.start_span(name, context, KINDS[kind], attributes)
    return Passed(span) if isinstance(span, NonRecordingSpan) else Recorded(span, tracer, clock)


def _headers(span: OtelSpan) -> Mapping[str, str]:
    said = span.get_span_context()
    return {"traceparent": f"00-{said.trace_id:032x}-{said.span_id:016x}-{said.trace_flags:02x}"}
