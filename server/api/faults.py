"""Turns every fault into an answer in the caller's shape: OpenAI's error object on /v1, ours elsewhere."""

from http import HTTPStatus
from typing import Any

import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException

from server.chat.telling import openai_error
from server.errors import InvalidRequest, WirthforgeError

SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address does not take that method.",
    413: "The request is larger than this server reads.",
}

log = structlog.get_logger(__name__)


def answer_fault(request: Request[Any, Any, Any], exception: Exception) -> Response[dict[str, Any]]:
    """Litestar's exception handler for everything."""
    error = _as_error(request, exception)
    if request.scope["path"].startswith("/v1"):
        body = openai_error(error)
    else:
        body = {"error": {"message": error.message, "code": error.code, "param": error.param}}
    # Retry-After of ours, or Allow of Litestar's.
    headers = dict(getattr(exception, "headers", None) or {})
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(body, status_code=error.status, headers=headers, media_type=MediaType.JSON)


def _as_error(request: Request[Any, Any, Any], exception: Exception) -> WirthforgeError:
    if isinstance(exception, WirthforgeError):
        if exception.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.warning("fault", code=exception.code, message=exception.message)
        return exception
    if isinstance(exception, HTTPException):
        error = WirthforgeError(_sentence(exception), code=HTTPStatus(exception.status_code).name.lower())
        error.status = exception.status_code
        return error
    if isinstance(exception, RecursionError):
        log.warning("body nested too deeply", path=request.scope["path"])
        return InvalidRequest("The body is nested too deeply.", code="invalid_json")
    if isinstance(exception, UnicodeDecodeError):
        log.warning("body is not UTF-8", path=request.scope["path"])
        return InvalidRequest("The body is not UTF-8.", code="invalid_json")
    log.error("bug", path=request.scope["path"], exc_info=exception)
    return WirthforgeError("The server made a mistake. Its log says more.")


def _sentence(exception: HTTPException) -> str:
    """Litestar's words, or ours; for a wrong field, which one."""
    if isinstance(exception.extra, list) and exception.extra and isinstance(first := exception.extra[0], dict):
        return f"{first.get('key') or 'The body'}: {first.get('message', 'is wrong')}."
    return SENTENCES.get(exception.status_code) or exception.detail or HTTPStatus(exception.status_code).phrase
