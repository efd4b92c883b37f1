"""Errors carry their status, and one sentence for the person who caused them.

Whoever finds a fault raises it with the HTTP status it means and a machine-readable code. The edges turn it into the
shape that their callers expect: OpenAI's error object on `/v1`, ours on `/api`, one line on the terminal.
"""

from collections.abc import Mapping
from typing import Any


class WirthforgeError(Exception):
    """A fault with a sentence that may be shown to its cause. Never holds prompt text or secrets.

    Attributes:
        status: the HTTP status that the fault means.
        code: stable and machine-readable, in snake_case.
        retry_after_s: whole seconds after which trying again is worth it, where that is known.
        param: the field of the request that is wrong, where it is one.
        about: what a program needs to go on; `error.wirthforge` on /v1. For whoever asked, and nobody else.
    """

    status: int = 500
    code: str = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.about = about
        self._headers = headers or {}
        if code is not None:
            self.code = code

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that belong to the fault; `Retry-After` is at least one second."""
        if self.retry_after_s is None:
            return self._headers
        return {**self._headers, "Retry-After": str(max(1, self.retry_after_s))}


class InvalidRequest(WirthforgeError):
    """The request itself is wrong; sending it again changes nothing."""

    status = 400
    code = "invalid_request"


class NotAuthenticated(WirthforgeError):
    """Nobody, or nobody that we know, is asking."""

    status = 401
    code = "not_authenticated"


class NotAllowed(WirthforgeError):
    """The principal is known and may not do this."""

    status = 403
    code = "not_allowed"


class NotFound(WirthforgeError):
    """The thing named does not exist, or is not the caller's to see."""

    status = 404
    code = "not_found"


class TooSlow(WirthforgeError):
    """The client took too long to say what it wants."""

    status = 408
    code = "request_timeout"


class Conflict(WirthforgeError):
    """The thing exists already, or changed meanwhile."""

    status = 409
    code = "conflict"


class TooLarge(WirthforgeError):
    """The body exceeds what the server reads."""

    status = 413
    code = "request_too_large"


class TooMany(WirthforgeError):
    """The caller's own limit is reached (never: the box is full)."""

    status = 429
    code = "rate_limit_exceeded"


class EngineFailed(WirthforgeError):
    """An engine answered with a fault of its own, or with something that is no answer."""

    status = 502
    code = "engine_failed"


class Unavailable(WirthforgeError):
    """The box cannot serve this now: full, or a part of it is away."""

    status = 503
    code = "unavailable"


class EngineTimeout(WirthforgeError):
    """An engine said nothing for longer than it may."""

    status = 504
    code = "engine_timeout"


class StartError(WirthforgeError):
    """The server cannot start; the message says what to do about it."""

    code = "cannot_start"
