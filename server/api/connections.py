"""What a connection may cost: bounds in time, bytes and number below HTTP, which uvicorn (0.54) leaves open.

Theory of operation. A connection is either in use (a request was read to the end of its head, and its answer is not
complete) or it waits for a request. In use it is scope.py that bounds it: what it gives, and what it takes. What waits
is worth nothing, so it is bounded here, and gives way:

    time      a head that has begun must be complete within HEADER_MS_MAX; so must the first one of a connection, begun
              or not, and the rest of a body that was answered before it was read (uvicorn closes what is idle between
              two requests)
    bytes     a head has HEADER_BYTES_MAX; 431 (RFC 6585, section 5)
    number    a server has connections_max(); whoever comes then takes the place of the one that waits longest, and gets
              a 503 only where all are in use. So connections that say nothing keep nobody out
    taking    whoever takes nothing of what was sent for TAKE_MS_MAX is hung up on, also while files are sent, and after
              the answer's end, where neither uvicorn nor the system would ever end it

A file descriptor is needed for each, and one more for the engine that answers it: as many connections are taken as the
process may open files for, and the soft limit of those is raised first.
"""

import asyncio
import resource
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.api import headers, scope
from server.chat.telling import openai_error
from server.errors import InvalidRequest, Unavailable, WirthforgeError

HEADER_MS_MAX = 20_000
HEADER_BYTES_MAX = 64 * 1024
CONNECTIONS_MAX = 8_192
# A connection and its engine's; and what Postgres, Redis, files and everything else needs.
FILES_PER_CONNECTION = 2
FILES_KEPT = 256
# With fewer there is no serving.
CONNECTIONS_MIN = 16


class BadHead(Exception):
    """Stops the parser; the answer says why."""


class Waiting:
    """The connections of one server that wait for a request, the longest first."""

    def __init__(self, connections_max: int) -> None:
        self.connections_max = connections_max
        self._all: dict[BoundedHttp, None] = {}

    def add(self, connection: "BoundedHttp") -> None:
        """It waits from now on."""
        self._all[connection] = None

    def discard(self, connection: "BoundedHttp") -> None:
        """It is in use, or gone."""
        self._all.pop(connection, None)

    def oldest(self) -> "BoundedHttp | None":
        """Take out the one that waits longest."""
        found = next(iter(self._all), None)
        if found is not None:
            del self._all[found]
        return found


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP, with bounds."""

    def __init__(self, *, waiting: Waiting, **uvicorn: Any) -> None:  # noqa: ANN401
        super().__init__(**uvicorn)
        self._waiting = waiting
        self._until_head: asyncio.TimerHandle | None = None
        self._until_taken: asyncio.TimerHandle | None = None
        self._waits = True
        # What the parser is at, and how much of the head it has read, rounded up to what came at once.
        self._is_in_head = True
        self._head_bytes = 0
        self._error: WirthforgeError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it, if need be in the place of another."""
        super().connection_made(transport)
        if len(self.connections) > self._waiting.connections_max:
            other = self._waiting.oldest()
            if other is None:
                self._refuse(Unavailable("The server has as many connections as it can.", retry_after_s=5))
                return
            other.make_room()
        self._wait()
        self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._use()
        if self._until_taken is not None:
            self._until_taken.cancel()
            self._until_taken = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, within bounds."""
        if self._waits and self._until_head is None:
            self._hurry()
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > HEADER_BYTES_MAX and not self.transport.is_closing():
            self._refuse(_too_large())

    def on_headers_complete(self) -> None:
        """In use from now on, unless there is too much of it."""
        self._is_in_head = False
        # What came at once may hold the body too.
        if self._head_bytes > HEADER_BYTES_MAX and _size(self.url, self.headers) > HEADER_BYTES_MAX:
            self._error = _too_large()
            raise BadHead
        self._head_bytes = 0
        self._use()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next head may come."""
        self._is_in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the client to take the rest of this answer."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._see_taken()
        elif self.cycle.response_complete:  # no request that came meanwhile was begun
            self._wait()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came after an answer."""
        super().timeout_keep_alive_handler()
        self._see_taken()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or too much of it."""
        self._refuse(self._error or InvalidRequest(msg, code="invalid_http"))

    def pause_writing(self) -> None:
        """The client takes slower than we give."""
        super().pause_writing()
        self._see_taken()

    def resume_writing(self) -> None:
        """It has taken."""
        super().resume_writing()
        if self._until_taken is not None:
            self._until_taken.cancel()
            self._until_taken = None

    def make_room(self) -> None:
        """End now, for somebody who may have something to say; what was not taken of an answer is lost."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _wait(self) -> None:
        self._waits = True
        self._waiting.add(self)

    def _use(self) -> None:
        self._waits = False
        self._waiting.discard(self)
        if self._until_head is not None:
            self._until_head.cancel()
            self._until_head = None

    def _hurry(self) -> None:
        self._until_head = self.loop.call_later(HEADER_MS_MAX / 1000, self._give_up)

    def _give_up(self) -> None:
        self._use()
        self.transport.close()
        self._see_taken()

    def _see_taken(self) -> None:
        if self._until_taken is None:
            self._until_taken = self.loop.call_later(scope.TAKE_MS_MAX / 1000, self.transport.abort)

    def _refuse(self, error: WirthforgeError) -> None:
        """Answer with an error and hang up; in the middle of an answer only hang up."""
        self._use()
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()
            return
        body = msgspec.json.encode(openai_error(error))
        told = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            **error.headers,
        }
        raw = [(name.lower().encode(), value.encode()) for name, value in told.items()]
        lines = [b"%s: %s\r\n" % pair for pair in headers.guarded(raw, is_https=False)]
        status = HTTPStatus(error.status)
        first = f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
        self.transport.write(b"".join([first, *lines, b"\r\n", body]))
        self.transport.close()
        self._see_taken()


def bounded_http() -> partial[BoundedHttp]:
    """What makes the connections of one server, for uvicorn's `http`."""
    return partial(BoundedHttp, waiting=Waiting(connections_max()))


def connections_max() -> int:
    """How many connections this process can have; raises its limit of open files if the system allows that."""
    needed = FILES_KEPT + FILES_PER_CONNECTION * CONNECTIONS_MAX
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections_within(soft)


def connections_within(files: int) -> int:
    """How many connections so many open files are enough for."""
    return max(CONNECTIONS_MIN, min(CONNECTIONS_MAX, (files - FILES_KEPT) // FILES_PER_CONNECTION))


def _size(url: bytes, fields: list[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) + 4 for name, value in fields)


def _too_large() -> WirthforgeError:
    error = InvalidRequest(f"The head of the request is longer than {HEADER_BYTES_MAX} bytes.", code="head_too_large")
    error.status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return error
