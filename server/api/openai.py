"""OpenAI's surface: models, chat completions, completions, embeddings."""

from collections.abc import AsyncIterator
from typing import Any

import structlog
from litestar import Request, Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send

from server.api.documentation import ChatCompletion, Completion, Embedding
from server.api.faults import error_event
from server.api.scope import request_scope
from server.api.wire import parse
from server.chat.pipeline import Answer, Pipeline
from server.engines.pool import Pool, Route
from server.errors import NotFound, WirthforgeError
from server.messages import Principal, Surface

log = structlog.get_logger(__name__)


class _Bytes:
    """An ASGI response of bytes, or of an event stream whose headers wait for its first event.

    While nothing has come the status is still open, so an engine that fails before its first token is an HTTP error.
    """

    def __init__(self, answer: Answer, first: bytes = b"") -> None:
        self._answer = answer
        self._first = first

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the answer."""
        answer = self._answer
        kind = b"application/json" if answer.stream is None else b"text/event-stream"
        headers = [
            (b"content-type", kind),
            (b"x-wirthforge-engine", answer.engine.encode("latin-1", "replace")),
            (b"x-wirthforge-queue-ms", str(answer.queue_ms).encode()),
        ]
        if answer.stream is None:
            headers.append((b"content-length", str(len(answer.body)).encode()))
        else:
            # Proxies must not collect events.
            headers += [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if answer.stream is not None:
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for events in _with_error(answer.stream):
                await send({"type": "http.response.body", "body": events, "more_body": True})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})


async def _with_error(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The stream; should it break, its last event is OpenAI's error object."""
    try:
        async for events in stream:
            yield events
    except WirthforgeError as error:
        log.warning("stream broke", code=error.code)
        yield error_event(error)


async def _answer(
    surface: Surface, request: Request[Any, Any, Any], principal: Principal, pipeline: Pipeline
) -> ASGIApp:
    scope = request_scope(request.scope)
    model_request = parse(surface, await request.body(), scope.id)
    answer = await pipeline.answer(model_request, principal, scope.stack)
    first = b"" if answer.stream is None else await anext(answer.stream, b"")
    return _Bytes(answer, first)


@post("/chat/completions", status_code=200, operation_class=ChatCompletion)
async def chat_completions(
    request: Request[Any, Any, Any], principal: NamedDependency[Principal], pipeline: NamedDependency[Pipeline]
) -> ASGIApp:
    """Answer a conversation, streamed or in one piece."""
    return await _answer("chat.completions", request, principal, pipeline)


@post("/completions", status_code=200, operation_class=Completion)
async def completions(
    request: Request[Any, Any, Any], principal: NamedDependency[Principal], pipeline: NamedDependency[Pipeline]
) -> ASGIApp:
    """Go on with a text, streamed or in one piece."""
    return await _answer("completions", request, principal, pipeline)


@post("/embeddings", status_code=200, operation_class=Embedding)
async def embeddings(
    request: Request[Any, Any, Any], principal: NamedDependency[Principal], pipeline: NamedDependency[Pipeline]
) -> ASGIApp:
    """Turn texts into vectors, where the engine can."""
    return await _answer("embeddings", request, principal, pipeline)


@get("/models")
async def models(principal: NamedDependency[Principal], pool: NamedDependency[Pool]) -> dict[str, Any]:
    """Every model that can be asked."""
    return {"object": "list", "data": [_listed(route) for route in pool.routes()]}


@get("/models/{model:path}")
async def model(
    model: FromPath[str], principal: NamedDependency[Principal], pool: NamedDependency[Pool]
) -> dict[str, Any]:
    """One model."""
    for route in pool.routes():
        # Litestar's path parameters begin with the slash.
        if route.model.id in {model, model.removeprefix("/")}:
            return _listed(route)
    raise NotFound("There is no such model. GET /v1/models lists them.", code="model_not_found")


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
