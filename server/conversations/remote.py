"""The stream of an answer that runs in another replica, by its row: what it has, and every second what is new.

It is the same stream to whoever reads it, in larger pieces and up to two seconds late: chunks of a chat completion, a
council as the `summary` that its row holds, and an end that says how it was.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec

from server.chat.telling import error_event
from server.clock import Clock
from server.conversations.running import DONE
from server.db.models import Message
from server.errors import EngineFailed, NotFound, Unavailable, WirthforgeError

LOOK_MS = 1_000


async def watched(row: Message, look: Callable[[], Awaitable[Message]], clock: Clock) -> AsyncGenerator[bytes, None]:
    """The stream.

    Args:
        look: gives the row as it is now. Raises NotFound, Unavailable.
    """
    told = _Told(row)
    yield told.introduction()
    while True:
        if events := told.news(row):
            yield events
        if row.state != "streaming":
            yield told.end(row)
            return
        await clock.sleep_ms(LOOK_MS)
        try:
            row = await look()
        except NotFound:
            yield told.removed()
            return
        except Unavailable:
            yield b": waiting for the database\n\n"


class _Told:
    """What the reader has got."""

    def __init__(self, row: Message) -> None:
        self._about: dict[str, Any] = {
            "id": row.conversation_id,
            "question_id": row.parent_id,
            "answer_id": row.id,
        }
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{row.id}",
            "object": "chat.completion.chunk",
            "created": int(row.created_at.timestamp()),
            "model": row.model,
        }
        self._content = self._thinking = ""
        self._council: dict[str, Any] | None = None
        self._cloud: dict[str, Any] | None = None

    def introduction(self) -> bytes:
        """Which answer it is."""
        return _data({"wirthforge": {"conversation": self._about}})

    def news(self, row: Message) -> bytes:
        """What the row says that was not told yet."""
        found = b""
        if row.council is not None and row.council != self._council:
            self._council = row.council
            found += self._chunk({}, council=row.council)
        if row.cloud is not None and row.cloud != self._cloud:
            self._cloud = row.cloud
            found += self._chunk({}, cloud=row.cloud)
        thinking, content = row.thinking, row.content
        if len(thinking) > len(self._thinking):
            found += self._chunk({"reasoning_content": thinking[len(self._thinking) :]})
        if not content.startswith(self._content):  # it broke off, and began again
            again = {"type": "content", "text": content, "is_restart": True}
            found += self._chunk({"content": content}, council=again)
        elif content != self._content:
            found += self._chunk({"content": content[len(self._content) :]})
        self._thinking, self._content = thinking, content
        return found

    def end(self, row: Message) -> bytes:
        """How it ended."""
        match row.state:
            case "complete":
                usage = {"prompt_tokens": row.input_tokens or 0, "completion_tokens": row.output_tokens or 0}
                usage["total_tokens"] = sum(usage.values())
                last = self._chunk({}, reason=row.finish_reason or "stop")
                return last + _data({**self._head, "choices": [], "usage": usage}) + DONE
            case "stopped":
                return self.removed()
            case _:
                return error_event(_problem(row))

    def removed(self) -> bytes:
        """There will be no more."""
        return _data({"wirthforge": {"conversation": {**self._about, "state": "stopped"}}}) + DONE

    def _chunk(self, delta: dict[str, str], *, reason: str | None = None, **ours: dict[str, Any] | None) -> bytes:
        told = {name: value for name, value in ours.items() if value is not None}
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return _data({**self._head, "choices": [choice], **({"wirthforge": told} if told else {})})


def _problem(row: Message) -> WirthforgeError:
    sentence = row.problem or "The answer broke off."
    if row.state == "interrupted":
        return Unavailable(sentence, code="interrupted")
    return EngineFailed(sentence)


def _data(message: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(message) + b"\n\n"
