"""A streamed answer as its client reads it: where it stands in the queue, the events, the error that it breaks with.

These are bytes and nothing else: who carries them (server/api/openai.py to whoever asked, server/conversations into the
memory of an answer that has many readers) is not known here.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Protocol, runtime_checkable

import msgspec
import structlog

from quotas.forecast import Standing
from server.chat.pipeline import Answer
from server.errors import WirthforgeError
from server.sharing.lease import Tell

# OpenAI's `type` by status, where it is not simply the caller's or the server's fault; its clients choose their
# exception by the status, people read the rest.
OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
# The end of waiting.
TURN = b": queue done\n\n"

log = structlog.get_logger(__name__)

Write = Callable[[bytes], Awaitable[None]]


@runtime_checkable
class Speaks(Protocol):
    """A `Tell` (server/sharing/lease.py) by which something else can be said to whoever waits."""

    async def say(self, events: bytes) -> None:
        """Whole events or comments of a stream, before the answer begins."""
        ...


def openai_error(error: WirthforgeError) -> dict[str, Any]:
    """OpenAI's error object."""
    is_ours = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    kind = OPENAI_TYPES.get(error.status, "server_error" if is_ours else "invalid_request_error")
    told: dict[str, Any] = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return {"error": told if error.about is None else {**told, "wirthforge": error.about}}


def error_event(error: WirthforgeError) -> bytes:
    """The error as the last event of a stream, where no header can tell any more when to come again."""
    body = openai_error(error)
    if error.retry_after_s is not None:
        body["error"]["retry_after_s"] = error.retry_after_s
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def queue_comment(standing: Standing) -> bytes:
    """Where a request stands; a comment, which clients skip that do not know it, and proxies see life."""
    wait_s = wait_s_of(standing)
    about = "" if wait_s is None else f" wait_s={wait_s}"
    return f": queue ahead={standing.ahead}{about}\n\n".encode()


def wait_s_of(standing: Standing) -> int | None:
    """The expected wait in whole seconds, rounded up; None where nobody knows."""
    return None if standing.wait_ms is None else -(-standing.wait_ms // 1000)


def fault_of(error: BaseException) -> WirthforgeError:
    """What a client is told of an exception; one that is no fault of ours to tell is a bug, and logged."""
    if isinstance(error, WirthforgeError):
        log.warning("stream broke", code=error.code)
        return error
    log.error("bug", exc_info=error)
    return WirthforgeError("The server made a mistake. Its log says more.")


async def with_error(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The stream; should it break, its last event is OpenAI's error object."""
    try:
        async for events in stream:
            yield events
    except WirthforgeError as error:
        yield error_event(fault_of(error))


async def told(write: Write, begin: Callable[[Tell], Awaitable[Answer]]) -> WirthforgeError | None:
    """Write the whole of a streamed answer, from its first place in the queue on.

    Args:
        begin: asks, telling its argument where the request stands.

    Returns:
        What the answer broke with, which `write` has not been told yet; None if it came to its end.
    """
    tell = _Telling(write)
    try:
        answer = await begin(tell)
        if tell.has_waited:
            await write(TURN)
        assert answer.stream is not None, "it was asked to stream"
        async for events in answer.stream:
            await write(events)
    except Exception as error:  # noqa: BLE001 (the end of the way: whoever reads is told)
        return fault_of(error)
    return None


class _Telling:
    """Writes where a request stands, and what else is said while it waits."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self.has_waited = False

    async def __call__(self, standing: Standing, _headers: Mapping[str, str]) -> None:
        self.has_waited = True
        await self._write(queue_comment(standing))

    async def say(self, events: bytes) -> None:
        """See `Speaks`."""
        await self._write(events)
