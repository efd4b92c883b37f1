"""The outermost layer: what belongs to one request from its first byte to its last.

An HTTP request may end while our code waits anywhere: in the queue, for a token, or in `send()` on a client that does
not read. Streaming generators are no place to clean up, since one that is suspended when its client vanishes is
finished whenever it happens to be collected. So this middleware owns an exit stack for each request; leases and
engine connections are pushed on it, and it is unwound right here, whatever happens inside.

Once a request has been read, a watch waits for the client's disconnect and cancels the request's task. What the task
was doing then does not matter.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import cast
from uuid import UUID

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPReceiveMessage, HTTPScope, Message, Receive, Scope, Send

from server.chat.telling import error_event, openai_error
from server.clock import Clock, uuid7
from server.errors import Unavailable
from server.telemetry import HTTP_REQUESTS

KEY = "wirthforge.request"
# A client that takes nothing for so long is treated like one that left: others wait for its slot.
TAKE_MS_MAX = 60_000
# Nobody reads a log line for each of these.
QUIET_PATHS = frozenset({"/health", "/healthz", "/readyz", "/metrics"})

log = structlog.get_logger(__name__)


class RequestScope:
    """One request.

    Attributes:
        id: goes into logs, headers, the engine's headers and the usage row.
        stack: unwound when the request is over.
    """

    def __init__(self, request_id: UUID, stack: AsyncExitStack, receive: Receive, send: Send) -> None:
        self.id = request_id
        self.stack = stack
        self.status = 0
        self.is_stream = False
        self.is_answered = False
        self.is_client_gone = False
        # Which message is on its way, and whether the client has yet to take it.
        self._sent = 0
        self._is_sending = False
        self._receive = receive
        self._send = send
        self._task = asyncio.current_task()
        self._watch: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()

    async def receive(self) -> HTTPReceiveMessage:
        """ASGI's receive; after the body there is only the disconnect left to receive."""
        if self._watch is not None:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        message = cast("HTTPReceiveMessage", await self._receive())
        if message["type"] == "http.disconnect":
            self.is_client_gone = True  # in the middle of its body
        elif not message.get("more_body", False):
            self._watch = asyncio.create_task(self._watch_client())
        return message

    async def send(self, message: Message) -> None:
        """ASGI's send, with the request's id on the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.is_stream = (b"content-type", b"text/event-stream") in message["headers"]
            message["headers"] = [*message["headers"], (b"x-request-id", str(self.id).encode())]
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.is_answered = True
        self._sent += 1
        self._is_sending = True
        await self._send(message)
        self._is_sending = False

    async def _watch_client(self) -> None:
        """Wait until the client goes, or takes nothing for TAKE_MS_MAX. One timer for all messages: they are many."""
        is_there = True
        while is_there:
            sent = self._sent
            try:
                async with asyncio.timeout(TAKE_MS_MAX / 1000):
                    is_there = (await self._receive())["type"] != "http.disconnect"
            except TimeoutError:
                is_there = not (self._is_sending and self._sent == sent)
        # Servers also report a disconnect when the answer is complete.
        if not self.is_answered:
            self.is_client_gone = True
            assert self._task is not None
            self._task.cancel()
        self._gone.set()

    async def turn_away(self) -> None:
        """The server ends: say so, by the status, or as the last event of a stream whose client reads."""
        error = Unavailable("The server is being stopped. Try again soon.", code="shutting_down", retry_after_s=5)
        if self.is_stream and not self.is_answered and not self._is_sending:
            await self.send({"type": "http.response.body", "body": error_event(error), "more_body": False})
        if self.status == 0:
            headers = {"Content-Type": "application/json", "Connection": "close", **error.headers}
            raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            body = msgspec.json.encode(openai_error(error))
            await self.send({"type": "http.response.start", "status": error.status, "headers": raw})
            await self.send({"type": "http.response.body", "body": body, "more_body": False})

    def forgive(self) -> bool:
        """Whether a cancellation was ours, because the client went; if so it is over with."""
        if self.is_client_gone and self._task is not None:
            self._task.uncancel()
        return self.is_client_gone

    def close(self) -> None:
        """End the watch."""
        if self._watch is not None:
            self._watch.cancel()


class RequestScopes:
    """The middleware."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self.app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        started_ms = self._clock.monotonic_ms()
        async with AsyncExitStack() as stack:
            request = RequestScope(uuid7(self._clock.now()), stack, receive, send)
            stack.callback(request.close)
            scope[KEY] = request  # type: ignore[literal-required]
            structlog.contextvars.clear_contextvars()
            structlog.contextvars.bind_contextvars(request_id=str(request.id))
            try:
                await self.app(scope, cast("Receive", request.receive), request.send)
            except asyncio.CancelledError:
                if not request.forgive():
                    await request.turn_away()
        self._tell(scope, request, self._clock.monotonic_ms() - started_ms)

    def _tell(self, scope: HTTPScope, request: RequestScope, duration_ms: int) -> None:
        # 499: nginx' word for a client that closed the request.
        status = 499 if request.is_client_gone else request.status
        route = scope.get("path_template") or "unmatched"
        HTTP_REQUESTS.labels(scope["method"], route, str(status)).inc()
        if scope["path"] not in QUIET_PATHS:
            log.info("request", method=scope["method"], path=scope["path"], status=status, ms=duration_ms)


def request_scope(scope: Scope) -> RequestScope:
    """The scope of a request under way."""
    found = scope[KEY]  # type: ignore[literal-required]
    assert isinstance(found, RequestScope)
    return found
