"""text-generation-inference's own surface, for its clients: /generate, /generate_stream, / and /info.

A request goes the same way as one to /v1/completions, in OpenAI's words, and its answer comes back in TGI's
(tgi_wire.py). TGI serves one model, so its clients name none: the address does. Below /tgi/MODEL everything is for that
model, which is what `huggingface_hub.InferenceClient(base_url="…/tgi/MODEL")` needs; without it, for the first model
that is up and that the caller may use. The model may be a council: then the answer's own words are the tokens, and
what its members did stands in the details.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.types import ASGIApp, Receive, Scope, Send

from quotas.policy import Limits
from server import VERSION
from server.accounts.authentication import Authentication
from server.accounts.quotas import Quotas
from server.api.faults import answer_fault
from server.api.openai import EarlyResponse
from server.api.scope import request_scope
from server.api.tgi_wire import STOPS_MAX, GenerateRequest, Telling, as_completion, for_council, read_request
from server.api.wire import parse
from server.api.wishes import with_headers
from server.chat.pipeline import Answer
from server.council.named import NamedCouncils
from server.council.names import is_council
from server.council.names import parse as parse_council
from server.council.service import Councils
from server.engines.pool import Pool, Route
from server.errors import NotFound, Unavailable, WirthforgeError
from server.messages import Principal

# TGI's statuses for what it calls by others (router/src/server.rs); a full box stays 503.
STATUSES = {400: 422, 413: 422, 502: 424, 504: 424}
# Its kinds, by our status; huggingface_hub chooses its exception by them.
KINDS = {
    400: "validation",
    401: "authentication",
    403: "permission",
    404: "not_found",
    413: "validation",
    429: "overloaded",
    502: "generation",
    503: "overloaded",
    504: "generation",
}

log = structlog.get_logger(__name__)


@dataclass
class Generation(Operation):
    """The body of a request for text."""

    def __post_init__(self) -> None:
        example = {"inputs": "The box is", "parameters": {"max_new_tokens": 20}}
        described = Schema(title="GenerateRequest", type=OpenAPIType.OBJECT, required=["inputs"], example=example)
        self.request_body = RequestBody(required=True, content={"application/json": OpenAPIMediaType(schema=described)})


def _error(status: int, sentence: str) -> dict[str, str]:
    return {"error": sentence, "error_type": KINDS.get(status, "internal")}


def _error_event(error: WirthforgeError) -> bytes:
    return b"data: " + msgspec.json.encode(_error(error.status, error.message)) + b"\n\n"


def _answer_fault(request: Request[Any, Any, Any], exception: Exception) -> Response[dict[str, str]]:
    """Every fault in TGI's shape."""
    fault = answer_fault(request, exception)
    status = fault.status_code or HTTPStatus.INTERNAL_SERVER_ERROR
    body = _error(status, fault.content["error"]["message"])
    return Response(body, status_code=STATUSES.get(status, status), headers=fault.headers, media_type=fault.media_type)


def _routes(pool: Pool, limits: Limits, model: str) -> list[Route]:
    """The engines that serve the model, or the first model that the caller may use."""
    if model:
        return pool.routes_to(model)
    for route in pool.routes():
        if limits.allows(route.model.id):
            return pool.routes_to(route.model.id)
    raise Unavailable("No engine that answers has a model for you. Try again in a few seconds.", retry_after_s=3)


class _Service:
    """What a request needs, and who asks."""

    def __init__(
        self, request: Request[Any, Any, Any], authentication: Authentication, councils: Councils, quotas: Quotas
    ) -> None:
        self._request = request
        self._authentication = authentication
        self._councils = councils
        self._quotas = quotas

    async def _identify(self) -> Principal:
        principal = await self._authentication.recall(self._request)
        structlog.contextvars.bind_contextvars(user=principal.name)
        return principal

    async def generate(self, pool: Pool, model: str, *, is_stream: bool | None, wraps: bool = False) -> ASGIApp:
        """Answer.

        Args:
            is_stream: None where the body says it.
            wraps: whether the answer stands in a list.
        """
        limits, _ = await self._quotas.of(await self._identify())  # before the body is read
        scope = request_scope(self._request.scope)
        asked = read_request(await self._request.body())
        streams = bool(asked.stream) if is_stream is None else is_stream
        if is_council(model):
            completion = for_council(asked, model=model, is_stream=streams)
        else:
            completion = _for_routes(asked, _routes(pool, limits, model))
        model_request = parse("completions", msgspec.json.encode(completion), scope.id)
        model_request = with_headers(model_request, self._request.headers)
        reply = EarlyResponse(scope.send)
        try:
            answer = await self._councils.answer(
                model_request, self._identify, scope.stack, reply.tell if streams else None
            )
            telling = Telling(asked, is_council=is_council(model))
            await reply.hold(_streamed(answer, telling) if streams else await _whole(answer, telling, wraps=wraps))
        except Exception as error:
            if not reply.has_begun:
                raise
            if not isinstance(error, WirthforgeError):
                log.error("bug", exc_info=error)
                error = WirthforgeError("The server made a mistake. Its log says more.")
            return _broken(scope.send, error)
        return reply


def _for_routes(asked: GenerateRequest, routes: list[Route]) -> dict[str, Any]:
    """For one model. Streamed in any case: so its tokens are known one by one."""
    first = routes[0].model
    kinds = {route.engine.kind for route in routes}
    return as_completion(asked, model=first.id, kinds=kinds, context_tokens=first.context_tokens)


def _broken(send: Send, error: WirthforgeError) -> ASGIApp:
    """A stream that began with waiting and ends with an error."""

    async def end(_scope: Scope, _receive: Receive, _wrapped: Send) -> None:
        log.warning("stream broke", code=error.code)
        await send({"type": "http.response.body", "body": _error_event(error), "more_body": False})

    return end


def _streamed(answer: Answer, telling: Telling) -> Answer:
    assert answer.stream is not None
    return Answer(answer.headers, stream=_told(answer.stream, telling))


async def _told(stream: AsyncIterator[bytes], telling: Telling) -> AsyncIterator[bytes]:
    """TGI's events. What breaks before the first is raised, what breaks later is the last."""
    has_begun = False
    try:
        async for events in stream:
            if told := telling.feed(events):
                has_begun = True
                yield told
        has_begun = True
        yield telling.end()
    except WirthforgeError as error:
        if not has_begun:
            raise
        log.warning("stream broke", code=error.code)
        yield _error_event(error)


async def _whole(answer: Answer, telling: Telling, *, wraps: bool) -> Answer:
    if answer.stream is None:  # a council's
        telling.feed(b"data: " + answer.body + b"\n\n")
    else:
        async for events in answer.stream:
            telling.feed(events)
    told = telling.whole()
    input_tokens, output_tokens = telling.counts
    headers = {"x-prompt-tokens": str(input_tokens), "x-generated-tokens": str(output_tokens)}
    return Answer({**answer.headers, **headers}, body=msgspec.json.encode([told] if wraps else told))


@post("/", status_code=200, operation_class=Generation)
async def compat_generate(
    request: Request[Any, Any, Any],
    authentication: NamedDependency[Authentication],
    councils: NamedDependency[Councils],
    quotas: NamedDependency[Quotas],
    pool: NamedDependency[Pool],
) -> ASGIApp:
    """Go on with a text: streamed if the body says so, else as a list of one answer."""
    service = _Service(request, authentication, councils, quotas)
    return await service.generate(pool, "", is_stream=None, wraps=True)


@post("/generate", status_code=200, operation_class=Generation)
async def generate(
    request: Request[Any, Any, Any],
    authentication: NamedDependency[Authentication],
    councils: NamedDependency[Councils],
    quotas: NamedDependency[Quotas],
    pool: NamedDependency[Pool],
) -> ASGIApp:
    """Go on with a text, in one piece."""
    return await _Service(request, authentication, councils, quotas).generate(pool, "", is_stream=False)


@post("/generate_stream", status_code=200, operation_class=Generation)
async def generate_stream(
    request: Request[Any, Any, Any],
    authentication: NamedDependency[Authentication],
    councils: NamedDependency[Councils],
    quotas: NamedDependency[Quotas],
    pool: NamedDependency[Pool],
) -> ASGIApp:
    """Go on with a text, token by token."""
    return await _Service(request, authentication, councils, quotas).generate(pool, "", is_stream=True)


@post("/tgi/{place:path}", status_code=200, operation_class=Generation)
async def for_model(
    request: Request[Any, Any, Any],
    authentication: NamedDependency[Authentication],
    councils: NamedDependency[Councils],
    quotas: NamedDependency[Quotas],
    pool: NamedDependency[Pool],
) -> ASGIApp:
    """The three above, for the model in the address: /tgi/MODEL, /tgi/MODEL/generate, /tgi/MODEL/generate_stream."""
    place = str(request.path_params["place"]).strip("/")
    service = _Service(request, authentication, councils, quotas)
    for ending, is_stream in (("/generate_stream", True), ("/generate", False)):
        if place.endswith(ending):
            return await service.generate(pool, place.removesuffix(ending), is_stream=is_stream)
    return await service.generate(pool, place, is_stream=None, wraps=True)


@get("/info")
async def about(
    principal: NamedDependency[Principal], pool: NamedDependency[Pool], quotas: NamedDependency[Quotas]
) -> dict[str, Any]:
    """The model that is asked where none is named, and its limits."""
    limits, _ = await quotas.of(principal)
    return _info(_routes(pool, limits, "")[0])


@get("/tgi/{place:path}")
async def about_model(
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],
    pool: NamedDependency[Pool],
    quotas: NamedDependency[Quotas],
    named_councils: NamedDependency[NamedCouncils],
) -> dict[str, Any]:
    """/tgi/MODEL/info: that model and its limits."""
    model, _, ending = str(request.path_params["place"]).strip("/").rpartition("/")
    if ending == "info" and is_council(model):
        named = parse_council(model).named
        if named is not None and named_councils.get(named) is None:
            raise NotFound(f"There is no council {named!r}. GET /v1/models lists them.")
        return _told_of(model, context_tokens=None, slots=None)  # both depend on who will sit
    limits, _ = await quotas.of(principal)
    if ending != "info" or not limits.allows(model):
        raise NotFound("There is nothing at this address.")
    return _info(_routes(pool, limits, model)[0])


def _info(route: Route) -> dict[str, Any]:
    return _told_of(route.model.id, context_tokens=route.model.context_tokens, slots=route.engine.slots)


def _told_of(model: str, *, context_tokens: int | None, slots: int | None) -> dict[str, Any]:
    return {
        "model_id": model,
        "model_sha": None,
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": slots,
        "max_best_of": 1,
        "max_stop_sequences": STOPS_MAX,
        "max_input_tokens": None if context_tokens is None else context_tokens - 1,
        "max_total_tokens": context_tokens,
        "validation_workers": 1,
        "max_client_batch_size": 1,
        "router": "wirthforge",
        "version": VERSION,
        "sha": None,
        "docker_label": None,
    }


def router() -> Router:
    """Everything here."""
    handlers = [compat_generate, generate, generate_stream, for_model, about, about_model]
    return Router(
        path="/",
        route_handlers=handlers,
        tags=["text-generation-inference"],
        exception_handlers={Exception: _answer_fault},
    )
