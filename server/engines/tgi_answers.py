"""Answers of text-generation-inference: its event streams, and its faults as the errors that an adapter raises."""

import asyncio
import codecs
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import msgspec
from huggingface_hub.errors import OverloadedError, TextGenerationError, ValidationError

from server.engines.openai_compatible import ERROR_CHARACTERS_MAX, UNREADABLE, OpenAIReply, error_sentence
from server.errors import EngineFailed, EngineTimeout, InvalidRequest, Unavailable, WirthforgeError

# One event holds a token; with the whole text at the end some hundred kilobytes.
EVENT_BYTES_MAX = 4 * 1024 * 1024
EVENT_END = b"\n\n"
DONE = b"data: [DONE]\n\n"
# TGI's sentences about requests that do not fit (router/src/validation.rs).
TOO_LONG = re.compile(r"must have less than \d+ tokens|`max_new_tokens` must be <=")
# What its sentences begin with where the request is to blame (router/src/infer/mod.rs).
BLAMING = ("Input validation error", "Template error", "Missing template", "Tool error")
OVERLOADED = "Model is overloaded"


class Faults:
    """The errors of one engine.

    Args:
        name: the engine's.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def refusal(self, error: TextGenerationError | str) -> WirthforgeError:
        """What the first event says, if it is an error."""
        sentence = str(error)[:ERROR_CHARACTERS_MAX]
        if isinstance(error, OverloadedError) or sentence.startswith(OVERLOADED):
            return Unavailable(f"Engine {self.name} is busy. Try again later.", code="engine_busy", retry_after_s=2)
        if isinstance(error, ValidationError) or sentence.startswith(BLAMING):
            return self.invalid(sentence)
        return self.failed()

    @staticmethod
    def invalid(sentence: str) -> InvalidRequest:
        """The request is to blame."""
        return InvalidRequest(sentence, code="context_length_exceeded" if TOO_LONG.search(sentence) else None)

    def failed(self) -> EngineFailed:
        """It says so itself."""
        return EngineFailed(f"Engine {self.name} failed in the middle of its answer.")

    def stopped(self) -> EngineFailed:
        """It hung up."""
        return EngineFailed(f"Engine {self.name} stopped in the middle of its answer.", code="engine_stopped")

    def silent(self, silence_s: float) -> EngineTimeout:
        """It told nothing for so long."""
        return EngineTimeout(f"Engine {self.name} said nothing for {silence_s:.0f} s.")

    @contextmanager
    def of_rubbish(self) -> Iterator[None]:
        """Name what huggingface_hub raises on events that are no tokens."""
        try:
            yield
        except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
            raise EngineFailed(f"Engine {self.name} sent an event that is no token of TGI's.") from error


class Events:
    """An event stream: whole events that hold data, in the pieces they come in.

    Args:
        silence_s: how long it may tell no token.
        stall_s: the same, after the first.
    """

    def __init__(self, faults: Faults, response: aiohttp.ClientResponse, *, silence_s: float, stall_s: float) -> None:
        self.response = response
        self._faults = faults
        self._silence_s = silence_s
        self._stall_s = stall_s
        self._rest = b""
        self._decode = codecs.getincrementaldecoder("utf-8")().decode

    def expect_tokens(self) -> None:
        """See `Reply.expect_tokens`."""
        self._silence_s = self._stall_s

    async def next(self) -> bytes:
        """The next events; nothing at the end of the stream. Raises as `Reply.chunks`."""
        try:
            async with asyncio.timeout(self._silence_s):
                while chunk := await self.response.content.readany():
                    if events := self._whole(chunk):
                        return events
        except TimeoutError as error:  # ours, or the socket's
            raise self._faults.silent(self._silence_s) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._faults.stopped() from error
        except UnicodeDecodeError as error:
            raise EngineFailed(f"Engine {self._faults.name} sent something that is not UTF-8.") from error
        if self._rest.strip():
            raise self._faults.stopped()
        return b""

    def _whole(self, chunk: bytes) -> bytes:
        self._decode(chunk)
        events, end, self._rest = (self._rest + chunk.replace(b"\r", b"")).rpartition(EVENT_END)
        if len(self._rest) > EVENT_BYTES_MAX:
            raise EngineFailed(f"Engine {self._faults.name} sent an event of more than {EVENT_BYTES_MAX} bytes.")
        return events + end if events.startswith(b"data:") or b"\ndata:" in events else b""

    async def first(self) -> bytes:
        """The events that come first, which are not an error. Raises as `Engine.open`."""
        events = await self.next()
        if not events:
            raise self._faults.stopped()
        if (sentence := self.fault(events)) is not None:
            raise self._faults.refusal(sentence)
        return events

    def fault(self, events: bytes) -> str | None:
        """What an error among the events says."""
        if b'"error"' not in events:
            return None
        for event in events.split(EVENT_END):
            text = event.removeprefix(b"data:").strip()
            try:
                message = msgspec.json.decode(text) if text.startswith(b"{") else None
            except UNREADABLE as error:
                raise EngineFailed(f"Engine {self._faults.name} sent an event that is not JSON.") from error
            if isinstance(message, dict) and message.get("error"):
                return error_sentence(text)
        return None


class ChatStream:
    """A conversation's answer: TGI's bytes, but for what OpenAI calls otherwise.

    serde writes no blanks, and quotes inside a text are escaped: these bytes are found only where they are meant.
    """

    def __init__(self, faults: Faults, model: str, events: Events, first: bytes) -> None:
        self._faults = faults
        self._model = model
        self._events = events
        self._first = first
        self._calls = False
        self._is_finished = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """See `Reply.chunks`."""
        events = self._first
        while events:
            if self._events.fault(events) is not None:
                raise self._faults.failed()
            yield self._as_openai(events)
            if events.endswith(DONE):
                return
            events = await self._events.next()
        raise self._faults.stopped()

    def _as_openai(self, events: bytes) -> bytes:
        self._calls = self._calls or b'"tool_calls":[' in events
        events = events.replace(b'"finish_reason":"stop_sequence"', b'"finish_reason":"stop"')
        if self._calls:
            events = events.replace(b'"finish_reason":"stop"', b'"finish_reason":"tool_calls"')
        self._is_finished = self._is_finished or b'"finish_reason":"' in events
        if self._calls and not self._is_finished and events.endswith(DONE):
            # The token that ends a call is not passed on by TGI (router/src/chat.rs), and with it goes the reason.
            events = events.removesuffix(DONE) + self._end() + DONE
        # Absent rather than null: whoever looks for usage need not look into every event.
        return events.replace(b',"usage":null', b"")

    def _end(self) -> bytes:
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}
        chunk = {"object": "chat.completion.chunk", "id": "", "created": 0, "model": self._model, "choices": [choice]}
        return b"data: " + msgspec.json.encode(chunk) + EVENT_END

    async def read(self) -> bytes:
        """All events."""
        return b"".join([events async for events in self.chunks()])

    def expect_tokens(self) -> None:
        """See `Reply.expect_tokens`."""
        self._events.expect_tokens()

    def close(self) -> None:
        """Hang up."""
        self._events.response.close()


class WholeChat(OpenAIReply):
    """A conversation's answer in one piece."""

    async def read(self) -> bytes:
        """See `Reply.read`."""
        return (await super().read()).replace(b'"finish_reason":"stop_sequence"', b'"finish_reason":"stop"')
