"""What the API's documentation says beyond what the handlers' types tell.

The handlers of /v1 read their body themselves, since most of it goes on to the engine unseen; so its shape is told
here.
"""

from dataclasses import dataclass
from typing import Any

from litestar import Router
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
    SecurityScheme,
)

from server import VERSION
from server.accounts.authentication import Authentication

DESCRIPTION = """An inference server that a few people share. `/v1` is OpenAI's API: give any of its clients this
address and an
API key. `/api` is what the web client uses; it also takes API keys."""


def _body(title: str, example: dict[str, Any]) -> RequestBody:
    described = Schema(title=title, type=OpenAPIType.OBJECT, required=list(example), example=example)
    return RequestBody(required=True, content={"application/json": OpenAPIMediaType(schema=described)})


@dataclass
class ChatCompletion(Operation):
    """POST /v1/chat/completions."""

    def __post_init__(self) -> None:
        message = {"role": "user", "content": "What is a council?"}
        self.request_body = _body("ChatCompletionRequest", {"model": "wirthforge-large", "messages": [message]})


@dataclass
class Completion(Operation):
    """POST /v1/completions."""

    def __post_init__(self) -> None:
        self.request_body = _body("CompletionRequest", {"model": "wirthforge-large", "prompt": "The box is"})


@dataclass
class Embedding(Operation):
    """POST /v1/embeddings."""

    def __post_init__(self) -> None:
        self.request_body = _body("EmbeddingRequest", {"model": "wirthforge-large", "input": "The box"})


def documentation(authentication: Authentication) -> OpenAPIConfig:
    """The schema at /schema/openapi.json, for whoever has a key or is logged in; /docs shows it."""

    async def require_anybody(connection: ASGIConnection, _: BaseRouteHandler) -> None:  # type: ignore[type-arg]
        await authentication.require(connection)

    return OpenAPIConfig(
        title="WIRTHFORGE",
        version=VERSION,
        description=DESCRIPTION,
        openapi_router=Router("/schema", route_handlers=[], guards=[require_anybody], include_in_schema=False),
        render_plugins=[JsonRenderPlugin()],
        use_handler_docstrings=True,
        components=Components(security_schemes={"apiKey": SecurityScheme(type="http", scheme="bearer")}),
        security=[{"apiKey": []}],
    )
