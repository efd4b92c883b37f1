"""Counts a stream while it passes, and passes it as it is.

Theory of operation. An event stream is bytes; an event ends at an empty line; JSON holds no raw line break. So events
can be cut and counted by searching for two characters, and one event is one token for every engine we know. JSON is
parsed only for events that may matter to us, found by searching for their key: until the first token is seen (the
opening event of a chat holds a role and no text), and wherever `usage`, `error` or `[DONE]` stand. A match inside
somebody's text costs one parse and changes nothing, because the parsed event decides.

Everything else is forwarded in the pieces the socket gave, cut at event borders: no object per token.
"""

from contextlib import suppress
from typing import Any, cast

import msgspec

from server.errors import EngineFailed

EVENT_END = b"\n\n"
DONE = b"data: [DONE]\n\n"
# One event holds a few tokens; with logprobs and long ids some kilobytes.
EVENT_BYTES_MAX = 4 * 1024 * 1024
# An engine that claims more is not believed.
TOKENS_MAX = 1 << 31
# Engines that guess ahead send several tokens in one event; a few tokens (the end, a call's frame) come in none, and a
# few events hold none. Beyond that an engine's count is wrong, and what was streamed is charged.
TOKENS_PER_EVENT_MAX = 16
TOKENS_UNSEEN_MAX = 16
EVENTS_EMPTY_MAX = 4


class Meter:
    """One stream.

    Attributes:
        events: with text, seen so far.
        output_tokens: counted so far; replaced by the engine's own count when it comes.
        input_tokens: the engine's count, or None until it comes.
        cached_tokens: how many of them the engine had in its cache.
        has_first_token: whether any text, thought or tool call has been seen.
        is_complete: whether the stream ended as it should.
        fault: why it cannot go on: the engine reports an error, or sends what is no event.
    """

    def __init__(self, *, shows_usage: bool) -> None:
        self.output_tokens = 0
        self.input_tokens: int | None = None
        self.cached_tokens = 0
        self.events = 0
        self.has_first_token = False
        self.is_complete = False
        self._shows_usage = shows_usage
        self._is_finished = False
        # Why each choice ended, as far as it was read.
        self._reasons: dict[int, str] = {}
        self._rest = b""
        # What passed unread last: it may hold the finish reason of a stream without `[DONE]`.
        self._unread = b""
        self.fault: EngineFailed | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes as they come, and give those that may go on to the client: whole events only.

        What is wrong goes into `fault`, since there may be good events before it.
        """
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r", b"")
        buffer = self._rest + chunk
        end = buffer.rfind(EVENT_END) + len(EVENT_END)
        if end < len(EVENT_END):
            if len(buffer) > EVENT_BYTES_MAX:
                self.fault = EngineFailed("The engine's answer is no event stream.")
            self._rest = buffer
            return b""
        events, self._rest = buffer[:end], buffer[end:]
        if not self.has_first_token or b'"usage"' in events or b'"error"' in events or b"[DONE]" in events:
            return self._read_all(events)
        self._unread = events
        count = events.count(b"\n\ndata:") + events.startswith(b"data:")
        self.output_tokens += count
        self.events += count
        return events

    def cut(self) -> None:
        """The engine's stream was cut, and another goes on: what was no whole event comes again."""
        self._rest = self._unread = b""
        self._is_finished = False
        self.fault = None

    def ended_by(self) -> list[str]:
        """Why its choices ended, in the engine's words and their order; what passed unread last is read for it."""
        for event in _split(self._unread):
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                message = msgspec.json.decode(event.removeprefix(b"data:"))
                choices = message.get("choices") if isinstance(message, dict) else None
                for choice in choices if isinstance(choices, list) else []:
                    self._see_reason(choice)
        return [self._reasons[index] for index in sorted(self._reasons)]

    def end(self) -> bytes:
        """The engine hung up; what is still owed to the client.

        Raises:
            EngineFailed: the stream is not complete.
        """
        before = self.output_tokens, self.events
        rest = self.feed(EVENT_END) if self._rest.strip() else b""
        if self.fault is not None:
            raise self.fault
        if self.is_complete:
            return rest
        counted = self.output_tokens, self.events
        for event in _split(self._unread):
            self._read(event)
        self.output_tokens, self.events = counted
        if not self._is_finished:
            self.output_tokens, self.events = before  # half an event is none
            raise EngineFailed("The engine stopped in the middle of its answer.", code="engine_stopped")
        self.is_complete = True
        return rest + DONE

    def _read_all(self, events: bytes) -> bytes:
        forwarded: list[bytes] = []
        try:
            forwarded.extend(part for event in _split(events) if (part := self._read(event)) is not None)
        except EngineFailed as error:
            self.fault = error
        return b"".join(forwarded)

    def _read(self, event: bytes) -> bytes | None:
        """Look into one event; returns what of it the client gets."""
        if not event.startswith(b"data:"):
            return event
        text = event[len(b"data:") :].strip()
        if text == b"[DONE]":
            self.is_complete = True
            return event
        try:
            message = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EngineFailed("The engine sent an event that is not JSON.") from error
        if not isinstance(message, dict):
            raise EngineFailed("The engine sent an event that is no object.")
        if message.get("error"):
            raise EngineFailed("The engine failed in the middle of its answer.")
        choices = message.get("choices")
        self._count(choices if isinstance(choices, list) else [])
        usage = message.get("usage")
        if isinstance(usage, dict):
            self.see_usage(usage)
            if not choices and not self._shows_usage:
                return None
        return event

    def _count(self, choices: list[Any]) -> None:
        """An event with text is a token."""
        for choice in choices:
            if not isinstance(choice, dict):
                continue
            self._is_finished |= bool(choice.get("finish_reason"))
            self._see_reason(choice)
            delta = choice.get("delta")
            parts = cast("dict[str, Any]", delta) if isinstance(delta, dict) else choice
            if any(parts.get(name) for name in ("content", "reasoning_content", "reasoning", "tool_calls", "text")):
                self.has_first_token = True
                self.output_tokens += 1
                self.events += 1

    def _see_reason(self, choice: object) -> None:
        if isinstance(choice, dict) and isinstance(reason := choice.get("finish_reason"), str):
            index = choice.get("index")
            self._reasons[index if isinstance(index, int) else 0] = reason

    def see_usage(self, usage: dict[str, Any]) -> None:
        """Take over the engine's counts, as far as what was streamed bears them out.

        A stream may report usage more than once: the last report counts.
        """
        self.input_tokens = _tokens(usage, "prompt_tokens", self.input_tokens)
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            self.cached_tokens = _tokens(cast("dict[str, Any]", details), "cached_tokens", None) or 0
        output_tokens = _tokens(usage, "completion_tokens", None)
        if output_tokens is not None:
            most = self.events * TOKENS_PER_EVENT_MAX + TOKENS_UNSEEN_MAX
            self.output_tokens = max(min(output_tokens, most), self.events - EVENTS_EMPTY_MAX)


def _tokens(usage: dict[str, Any], name: str, otherwise: int | None) -> int | None:
    count = usage.get(name)
    # JSON's true is an int to Python.
    is_count = isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= TOKENS_MAX
    return count if is_count else otherwise


def _split(events: bytes) -> list[bytes]:
    """Whole events, each with its end."""
    return [event + EVENT_END for event in events.split(EVENT_END) if event.strip()]
