"""OpenAI's surface: models, chat completions, completions, embeddings."""

from collections.abc import Mapping
from typing import Any

import structlog
from litestar import Request, Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send

from quotas.forecast import Standing
from quotas.policy import Limits
from server.accounts.authentication import Authentication
from server.accounts.quotas import Quotas
from server.api.documentation import ChatCompletion, Completion, Embedding
from server.api.scope import request_scope
from server.api.wire import parse
from server.api.wishes import with_headers
from server.chat.pipeline import Answer
from server.chat.telling import TURN, error_event, fault_of, queue_comment, wait_s_of, with_error
from server.council.named import NamedCouncils
from server.council.names import PREFIX, SELF
from server.council.service import Councils
from server.engines.pool import Pool, Route
from server.errors import NotFound, WirthforgeError
from server.messages import Principal, Surface

EVENT_STREAM = b"text/event-stream"
# Proxies must not collect events.
UNCOLLECTED = {"cache-control": "no-store", "x-accel-buffering": "no"}


class EarlyResponse:
    """The ASGI response to one request: bytes, or an event stream.

    While nothing has come the status is open, so an engine that fails before its first token is an HTTP error. A stream
    that has to wait begins earlier, with comments that say where it stands; clients skip them, and proxies see life.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._answer: Answer | None = None
        self._first = b""
        self.has_begun = False

    async def _begin(self, kind: bytes, headers: Mapping[str, str]) -> None:
        self.has_begun = True
        raw = [(b"content-type", kind), *((name.encode(), _latin(value)) for name, value in headers.items())]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def tell(self, standing: Standing, headers: Mapping[str, str]) -> None:
        """Tell the client of a stream where it stands."""
        if not self.has_begun:
            wait_s = wait_s_of(standing)
            queue = {"x-wirthforge-queue-ahead": str(standing.ahead)}
            if wait_s is not None:
                queue["x-wirthforge-queue-wait-s"] = str(wait_s)
            await self._begin(EVENT_STREAM, {**headers, **queue, **UNCOLLECTED})
        await self._send({"type": "http.response.body", "body": queue_comment(standing), "more_body": True})

    async def say(self, events: bytes) -> None:
        """Say something else to the client of a stream that waits."""
        if not self.has_begun:
            await self._begin(EVENT_STREAM, UNCOLLECTED)
        await self._send({"type": "http.response.body", "body": events, "more_body": True})

    async def hold(self, answer: Answer) -> None:
        """Take the answer, and wait for its first event."""
        self._answer = answer
        if self.has_begun:
            await self._send({"type": "http.response.body", "body": TURN, "more_body": True})
        if answer.stream is not None:
            self._first = await anext(answer.stream, b"")

    def broken(self, error: WirthforgeError) -> ASGIApp:
        """A stream that began with waiting and ends with an error."""

        async def end(_scope: Scope, _receive: Receive, _wrapped: Send) -> None:
            await self._send({"type": "http.response.body", "body": error_event(error), "more_body": False})

        return end

    async def __call__(self, _scope: Scope, _receive: Receive, _wrapped: Send) -> None:
        """Send the answer."""
        answer = self._answer
        assert answer is not None
        if answer.stream is None:
            await self._begin(b"application/json", {**answer.headers, "content-length": str(len(answer.body))})
        else:
            if not self.has_begun:
                await self._begin(EVENT_STREAM, {**answer.headers, **UNCOLLECTED})
            await self._send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for events in with_error(answer.stream):
                await self._send({"type": "http.response.body", "body": events, "more_body": True})
        await self._send({"type": "http.response.body", "body": answer.body, "more_body": False})


class _Teller:
    """Tells the client of a stream."""

    def __init__(self, reply: EarlyResponse) -> None:
        self._reply = reply

    async def __call__(self, standing: Standing, headers: Mapping[str, str]) -> None:
        await self._reply.tell(standing, headers)

    async def say(self, events: bytes) -> None:
        """See server/chat/telling.py, `Speaks`."""
        await self._reply.say(events)


def _latin(value: str) -> bytes:
    return value.encode("latin-1", "replace")


async def _answer(
    surface: Surface, request: Request[Any, Any, Any], authentication: Authentication, councils: Councils
) -> ASGIApp:
    async def identify() -> Principal:
        principal = await authentication.recall(request)
        structlog.contextvars.bind_contextvars(user=principal.name)
        return principal

    await identify()  # before the body is read
    scope = request_scope(request.scope)
    model_request = with_headers(parse(surface, await request.body(), scope.id), request.headers)
    reply = EarlyResponse(scope.send)
    tell = _Teller(reply) if model_request.is_stream else None
    try:
        await reply.hold(await councils.answer(model_request, identify, scope.stack, tell))
    except Exception as error:
        if not reply.has_begun:
            raise
        return reply.broken(fault_of(error))
    return reply


@post("/chat/completions", status_code=200, operation_class=ChatCompletion)
async def chat_completions(
    request: Request[Any, Any, Any],
    authentication: NamedDependency[Authentication],
    councils: NamedDependency[Councils],
) -> ASGIApp:
    """Answer a conversation, streamed or in one piece."""
    return await _answer("chat.completions", request, authentication, councils)


@post("/completions", status_code=200, operation_class=Completion)
async def completions(
    request: Request[Any, Any, Any],
    authentication: NamedDependency[Authentication],
    councils: NamedDependency[Councils],
) -> ASGIApp:
    """Go on with a text, streamed or in one piece."""
    return await _answer("completions", request, authentication, councils)


@post("/embeddings", status_code=200, operation_class=Embedding)
async def embeddings(
    request: Request[Any, Any, Any],
    authentication: NamedDependency[Authentication],
    councils: NamedDependency[Councils],
) -> ASGIApp:
    """Turn texts into vectors, where the engine can."""
    return await _answer("embeddings", request, authentication, councils)


@get("/models")
async def models(
    principal: NamedDependency[Principal],
    pool: NamedDependency[Pool],
    quotas: NamedDependency[Quotas],
    named_councils: NamedDependency[NamedCouncils],
) -> dict[str, Any]:
    """Every model that the caller may ask, and the councils of these."""
    limits, _ = await quotas.of(principal)
    return {"object": "list", "data": _all(pool, limits, named_councils)}


@get("/models/{model:path}")
async def model(
    model: FromPath[str],
    principal: NamedDependency[Principal],
    pool: NamedDependency[Pool],
    quotas: NamedDependency[Quotas],
    named_councils: NamedDependency[NamedCouncils],
) -> dict[str, Any]:
    """One model."""
    limits, _ = await quotas.of(principal)
    for listed in _all(pool, limits, named_councils):
        # Litestar's path parameters begin with the slash.
        if listed["id"] in {model, model.removeprefix("/")}:
            return listed
    raise NotFound("There is no such model. GET /v1/models lists them.", code="model_not_found")


def _all(pool: Pool, limits: Limits, named: NamedCouncils) -> list[dict[str, Any]]:
    """Models, and councils where the caller's own limits allow more than one member."""
    routes = [route for route in pool.routes() if limits.allows(route.model.id)]
    listed = [_listed(route) for route in routes]
    if not routes or limits.council_size_max == 1:
        return listed
    known = {route.model.id for route in routes}
    own = [f"{PREFIX}:{council.name}" for council in named.known if not known.isdisjoint(council.definition.members)]
    is_demonstration = all(route.model.is_demonstration for route in routes)
    several = [PREFIX] if len(routes) > 1 else []
    return listed + [_council(name, is_demonstration=is_demonstration) for name in (*several, f"{PREFIX}:{SELF}", *own)]


def _council(name: str, *, is_demonstration: bool) -> dict[str, Any]:
    about = {"council": True, "demonstration": is_demonstration}
    return {"id": name, "object": "model", "created": 0, "owned_by": "wirthforge", "wirthforge": about}


def _listed(route: Route) -> dict[str, Any]:
    return {
        "id": route.model.id,
        "object": "model",
        "created": 0,
        "owned_by": "wirthforge",
        "wirthforge": {
            "engine": route.engine.name,
            "context_tokens": route.model.context_tokens,
            "demonstration": route.model.is_demonstration,
        },
    }


def router() -> Router:
    """Everything below /v1."""
    return Router("/v1", route_handlers=[chat_completions, completions, embeddings, models, model], tags=["OpenAI"])
