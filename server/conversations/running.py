"""An answer under way: its bytes so far, and whoever reads them.

A reader is a place in the list of what has come, and nothing else: one that is slow or leaves takes nothing from the
others, and the answer does not wait for any. All of it is kept until the answer has ended and its row is written, so it
has a bound.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Literal
from uuid import UUID

import msgspec

from server.clock import Clock
from server.conversations.transcript import Transcript
from server.errors import EngineFailed

ANSWER_BYTES_MAX = 16 * 1024 * 1024
# What a reader who comes late gets at once.
PIECE_BYTES = 256 * 1024
DONE = b"data: [DONE]\n\n"

Ending = Literal["complete", "stopped", "failed", "interrupted"]


class Running:
    """One answer.

    Attributes:
        id: of its message, its request, and its row of usage.
        transcript: as far as `read` has come.
        ending: how it ended; None while it has not.
        problem: why it failed.
        is_removed: its row is gone, and none is to be written.
        is_recorded: set when the last word of it is written, or given up.
    """

    def __init__(self, answer_id: UUID, question_id: UUID, conversation_id: UUID, user_id: UUID, clock: Clock) -> None:
        self.id = answer_id
        self.question_id = question_id
        self.conversation_id = conversation_id
        self.user_id = user_id
        self.transcript = Transcript()
        self.ending: Ending | None = None
        self.problem: str | None = None
        self.is_removed = False
        self.is_recorded = asyncio.Event()
        self.total_ms: int | None = None
        self.task: asyncio.Task[None] | None = None
        self._why: Ending = "interrupted"
        self._is_cancelled = False
        self._clock = clock
        self._began_ms = clock.monotonic_ms()
        self._parts: list[bytes] = []
        self._arrived_ms: list[int] = []
        self._read = 0
        self._bytes = 0
        self._readers: set[asyncio.Event] = set()

    async def write(self, part: bytes) -> None:
        """Take what has come. Raises EngineFailed where it is more than is kept."""
        if self._bytes + len(part) > ANSWER_BYTES_MAX:
            raise EngineFailed(f"The answer grew beyond {ANSWER_BYTES_MAX} bytes.", code="answer_too_large")
        self.add(part)

    def add(self, part: bytes) -> None:
        """The same without the bound, for what we say ourselves."""
        self._parts.append(part)
        self._arrived_ms.append(self._clock.monotonic_ms() - self._began_ms)
        self._bytes += len(part)
        self._wake()

    def introduce(self) -> None:
        """Its first event: which it is."""
        self.add(self._event({}))

    def end(self, ending: Ending, problem: str | None = None) -> None:
        """There is no more. How it ended is told where the answer itself does not."""
        self.total_ms = self._clock.monotonic_ms() - self._began_ms
        if ending == "stopped":
            self.add(self._event({"state": ending}) + DONE)
        self.ending, self.problem = ending, problem
        self._wake()

    def cancel(self, why: Ending) -> None:
        """End it early, wherever it is. Once: a second time would cut off what the first one set off."""
        if self.task is not None and not self.task.done() and not self._is_cancelled:
            self._why, self._is_cancelled = why, True
            self.task.cancel()

    @property
    def cancelled_as(self) -> Ending:
        """What a cancellation means: the server's own end, unless somebody said."""
        return self._why

    async def read(self) -> Transcript:
        """What it says by now. Lets others run in between, since much may have come."""
        while self._read < len(self._parts):
            size = 0
            while self._read < len(self._parts) and size < PIECE_BYTES:
                self.transcript.read(self._parts[self._read], self._arrived_ms[self._read])
                size += len(self._parts[self._read])
                self._read += 1
            await self._clock.sleep_ms(0)
        return self.transcript

    async def follow(self) -> AsyncGenerator[bytes, None]:
        """Everything from the beginning, and then what comes, until the end."""
        at, news = 0, asyncio.Event()
        self._readers.add(news)
        try:
            while True:
                news.clear()
                if at < len(self._parts):
                    begin, size = at, 0
                    while at < len(self._parts) and size < PIECE_BYTES:
                        size += len(self._parts[at])
                        at += 1
                    yield b"".join(self._parts[begin:at])
                elif self.ending is not None:
                    return
                else:
                    await news.wait()
        finally:
            self._readers.discard(news)

    def _wake(self) -> None:
        for news in self._readers:
            news.set()

    def _event(self, more: dict[str, Any]) -> bytes:
        about = {"id": self.conversation_id, "question_id": self.question_id, "answer_id": self.id, **more}
        return b"data: " + msgspec.json.encode({"wirthforge": {"conversation": about}}) + b"\n\n"
