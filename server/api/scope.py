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

from server.api.headers import guarded
from server.chat.telling import error_event, openai_error
from server.clock import Clock, uuid7
from server.errors import TooSlow, Unavailable
from server.telemetry import HTTP_OPEN, HTTP_REQUESTS, HTTP_SECONDS

KEY = "wirthforge.request"
# A client that takes nothing for so long is treated like one that left: others wait for its slot.
TAKE_MS_MAX = 60_000
# What a client may take to give us a body: so much time, and more as it gives.
GIVE_MS_MAX = 20_000
GIVE_BYTES_PER_S_MIN = 4_096
# A method that somebody made up is told under one name: labels are kept for ever.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Nobody reads a log line for each of these.
QUIET_PATHS = frozenset({"/health", "/healthz", "/readyz", "/metrics"})

log = structlog.get_logger(__name__)


class Ending:
    """Whether the server was asked to end.

    Attributes:
        has_begun: from now on each answer ends its connection, so that proxies open the next one elsewhere.
    """

    has_begun = False


class RequestScope:
    """One request.

    Attributes:
        id: goes into logs, headers, the engine's headers and the usage row.
        ending: the server's.
        stack: unwound when the request is over.
    """

    def __init__(self, request_id: UUID, ending: Ending, stack: AsyncExitStack, receive: Receive, send: Send) -> None:
        self.id = request_id
        self.ending = ending
        self.stack = stack
        self.status = 0
        self.is_stream = False
        self.is_answered = False
        self.is_client_gone = False
        # Whether browsers reach the server by https; the answer says so.
        self.is_https = False
        # Which message is on its way, and whether the client has yet to take it.
        self._sent = 0
        self._is_sending = False
        self._receive = receive
        self._send = send
        self._task = asyncio.current_task()
        self._watch: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()
        # On the loop's clock; until then there has to be more of the body.
        self._give_until: float | None = None

    async def receive(self) -> HTTPReceiveMessage:
        """ASGI's receive; after the body there is only the disconnect left to receive."""
        if self._watch is not None:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        message = await self._given()
        if message["type"] == "http.disconnect":
            self.is_client_gone = True  # in the middle of its body
        elif not message.get("more_body", False):
            self._watch = asyncio.create_task(self._watch_client())
        return message

    async def _given(self) -> HTTPReceiveMessage:
        """The next piece of the body; each gives time for those after it."""
        if self._give_until is None:
            self._give_until = asyncio.get_running_loop().time() + GIVE_MS_MAX / 1000
        try:
            async with asyncio.timeout_at(self._give_until):
                message = cast("HTTPReceiveMessage", await self._receive())
        except TimeoutError:
            raise TooSlow(
                f"The request's body came more slowly than {GIVE_BYTES_PER_S_MIN} bytes a second.",
                headers={"Connection": "close"},
            ) from None
        if message["type"] == "http.request":
            self._give_until += len(message["body"]) / GIVE_BYTES_PER_S_MIN
        return message

    async def send(self, message: Message) -> None:
        """ASGI's send, with the request's id and what every answer tells (headers.py)."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.is_stream = (b"content-type", b"text/event-stream") in message["headers"]
            headers = guarded(message["headers"], is_https=self.is_https)
            headers.append((b"x-request-id", str(self.id).encode()))
            if self.ending.has_begun:
                headers.append((b"connection", b"close"))
            message["headers"] = headers
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
            headers = {"Content-Type": "application/json", **error.headers}
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
    """The middleware.

    Attributes:
        ending: set by whoever runs the server.
    """

    def __init__(self, app: ASGIApp, clock: Clock, *, public_url: str = "") -> None:
        self.app = app
        self._is_public_https = public_url.lower().startswith("https:")
        self.ending = Ending()
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        started_ms = self._clock.monotonic_ms()
        async with AsyncExitStack() as stack:
            stack.enter_context(HTTP_OPEN.track_inprogress())
            request = RequestScope(uuid7(self._clock.now()), self.ending, stack, receive, send)
            request.is_https = self._is_public_https or scope["scheme"] == "https"
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
        method = scope["method"] if scope["method"] in METHODS else "other"
        HTTP_REQUESTS.labels(method, route, str(status)).inc()
        HTTP_SECONDS.labels(route).observe(duration_ms / 1000)
        if scope["path"] not in QUIET_PATHS:
            log.info("request", method=scope["method"], path=scope["path"], status=status, ms=duration_ms)


def request_scope(scope: Scope) -> RequestScope:
    """The scope of a request under way."""
    found = scope[KEY]  # type: ignore[literal-required]
    assert isinstance(found, RequestScope)
    return found
