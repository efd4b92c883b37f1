"""A provider's answer on its way back: bounded, timed, and told as OpenAI's events."""

from collections.abc import AsyncIterator, Callable
from typing import Protocol

import aiohttp

from server.cloud.events import Events, StreamBroken
from server.cloud.protocol import Counted
from server.errors import EngineFailed, EngineTimeout, WirthforgeError

ANSWER_BYTES_MAX = 16 * 1024 * 1024


class Left(Exception):
    """We hung up, which says nothing of the provider."""


class Translation(Protocol):
    """Makes OpenAI's events of what a provider says.

    Attributes:
        usage: its own count, as soon as it has told it.
        is_complete: nothing more is to come.
    """

    usage: Counted | None
    is_complete: bool

    def feed(self, data: bytes) -> bytes:
        """What one event becomes. Raises StreamBroken."""
        ...

    def end(self) -> bytes:
        """What is owed to the client where the provider hung up early. Raises StreamBroken where something is lost."""
        ...


def silent(name: str, silence_ms: int) -> EngineTimeout:
    """The fault of saying nothing for so long."""
    return EngineTimeout(f"Provider {name} said nothing for {silence_ms / 1000:g} s.")


class Streamed:
    """One answer.

    Args:
        silence_ms: how long it may say nothing before its first token, and after.
        on_end: called once: with the fault, with None where the answer is whole, or with `Left` where we hung up.

    Attributes:
        body_bytes: what has come so far.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        translation: Translation,
        *,
        name: str,
        silence_ms: tuple[int, int],
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        self.body_bytes = 0
        self._response = response
        self._translation = translation
        self._name = name
        self._silence_ms, self._stall_ms = silence_ms
        self._on_end: Callable[[BaseException | None], None] | None = on_end

    @property
    def usage(self) -> Counted | None:
        """See `CloudReply`."""
        return self._translation.usage

    def expect_tokens(self) -> None:
        """From now on it may pause only for as long as tokens take."""
        self._silence_ms = self._stall_ms
        connection = self._response.connection
        if connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = self._silence_ms / 1000
            connection.protocol.start_timeout()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Whole events. Raises EngineFailed and EngineTimeout."""
        events = Events()
        try:
            while not self._translation.is_complete:
                piece = await self._piece()
                if not piece:
                    if rest := self._translation.end():
                        yield rest
                    break
                told, broken = self._told(events, piece)
                if told:
                    yield told
                if broken is not None:
                    raise broken
        except StreamBroken as error:
            fault = EngineFailed(f"Provider {self._name} {error}.")
            self._end(fault)
            raise fault from error
        except WirthforgeError as error:
            self._end(error)
            raise
        self._end(None)

    async def _piece(self) -> bytes:
        try:
            piece = await self._response.content.readany()
        except aiohttp.SocketTimeoutError as error:
            raise silent(self._name, self._silence_ms) from error
        except TimeoutError as error:
            raise StreamBroken("did not come to an end of its answer") from error
        except (aiohttp.ClientError, OSError) as error:
            raise StreamBroken("stopped in the middle of its answer") from error
        self.body_bytes += len(piece)
        if self.body_bytes > ANSWER_BYTES_MAX:
            raise StreamBroken(f"answered with more than {ANSWER_BYTES_MAX} bytes")
        return piece

    def _told(self, events: Events, piece: bytes) -> tuple[bytes, StreamBroken | None]:
        """What the events of a piece become, up to a fault."""
        told: list[bytes] = []
        try:
            for data in events.feed(piece):
                told.append(self._translation.feed(data))
                if self._translation.is_complete:
                    break
        except StreamBroken as error:
            return b"".join(told), error
        return b"".join(told), None

    async def read(self) -> bytes:
        """All events in one piece. Raises like `chunks`."""
        return b"".join([chunk async for chunk in self.chunks()])

    def close(self) -> None:
        """Hang up. May be called twice."""
        self._response.close()
        self._end(Left())

    def _end(self, error: BaseException | None) -> None:
        tell, self._on_end = self._on_end, None
        if tell is not None:
            tell(error)
