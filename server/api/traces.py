"""The span of each HTTP request: all that happens for it is a part of this one, which ends last.

Without `traces_url` there is no such layer, and what makes traces is not imported.
"""

from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import urlsplit
from uuid import uuid4

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from server import VERSION
from server.api.scope import QUIET_PATHS, RequestScope, request_scope
from server.clock import Clock
from server.settings import Settings
from server.tracing import names
from server.tracing.spans import Attributes, Span, Value

SERVER_FAULT = 500
LAST_MESSAGES = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed", "lifespan.startup.failed"})


class Traces(Protocol):
    """What begins traces (server/tracing/otlp.py)."""

    def begin(self, name: str, attributes: Attributes, traceparents: Sequence[str]) -> Span:
        """The span of a request that has come in."""
        ...

    async def close(self) -> None:
        """Send what is left."""
        ...


def traced(app: ASGIApp, settings: Settings, clock: Clock) -> ASGIApp:
    """The same, with traces where they are wanted. Raises StartError where they are wanted from no address."""
    if not settings.traces_url:
        return app
    from server.tracing.otlp import Traces as Otlp  # noqa: PLC0415 (only if it is wanted)
    from server.tracing.otlp import endpoint_of  # noqa: PLC0415

    endpoint_of(settings.traces_url)

    def open_traces() -> Traces:
        resource = {"service.name": "wirthforge", "service.version": VERSION, "service.instance.id": str(uuid4())}
        return Otlp(settings.traces_url, percent=settings.traces_percent, resource=resource, clock=clock)

    return TracedRequests(app, open_traces, settings.public_url)


class TracedRequests:
    """The layer, right within that of the request's scope. Traces are open from the application's start to its end."""

    def __init__(self, app: ASGIApp, open_traces: Callable[[], Traces], public_url: str) -> None:
        self.app = app
        self._open_traces = open_traces
        self._public = urlsplit(public_url)
        self._traces: Traces | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request, or the application's life."""
        if str(scope["type"]) == "lifespan":
            await self._life(scope, receive, send)
        elif scope["type"] != ScopeType.HTTP or scope["path"] in QUIET_PATHS or self._traces is None:
            await self.app(scope, receive, send)
        else:
            span = self._begun(self._traces, scope)
            with span.within():
                await self.app(scope, receive, send)

    async def _life(self, scope: Scope, receive: Receive, send: Send) -> None:
        traces = self._traces = self._open_traces()

        async def telling(message: Message) -> None:
            # After these nobody waits for us.
            if str(message["type"]) in LAST_MESSAGES:
                self._traces = None
                await traces.close()
            await send(message)

        await self.app(scope, receive, telling)

    def _begun(self, traces: Traces, scope: HTTPScope) -> Span:
        method = scope["method"] if scope["method"] in names.METHODS else names.OTHER
        traceparents = [value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"]
        word = "HTTP" if method == names.OTHER else method
        span = traces.begin(word, {names.METHOD: method, **self._address(scope)}, traceparents)
        request = request_scope(scope)
        if span.is_on:
            # Unwound last: all that hangs on the request has ended then, and it is known what its client got.
            request.stack.callback(_end, span, word, scope, request)
        return span

    def _address(self, scope: HTTPScope) -> dict[str, Value]:
        """Where it came to, as the settings know it or the socket; what its client says of that is not kept."""
        host, port = self._public.hostname, self._public.port
        if host is None:
            host, port = scope.get("server") or ("", None)
        scheme = self._public.scheme or scope.get("scheme", "")
        told: dict[str, Value] = {names.SCHEME: scheme if scheme in {"http", "https"} else names.OTHER}
        if host:
            told[names.SERVER_ADDRESS] = host
            if port:
                told[names.SERVER_PORT] = port
        return told


def _end(span: Span, method: str, scope: HTTPScope, request: RequestScope) -> None:
    """What came of it. The route is a pattern of ours; of a path that matches none there is nothing to tell."""
    if route := scope.get("path_template"):
        span.rename(f"{method} {route}")
        span.note(names.ROUTE, route)
    span.note(names.REQUEST_ID, str(request.id))
    if request.status:
        span.note(names.STATUS, request.status)
    if request.is_client_gone:
        span.note(names.CLIENT_LEFT, True)  # noqa: FBT003 (a value)
    elif request.status >= SERVER_FAULT:
        span.fail(str(request.status))
    elif not request.is_answered:
        span.fail("unanswered")
    span.end()
