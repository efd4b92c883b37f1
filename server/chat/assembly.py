"""Puts a stream together again, for a client that wants its answer in one piece.

Engines are always asked to stream: a stream is counted while it grows, and stops when its client leaves. llama.cpp
computes an answer that is not streamed to its end, whether anybody waits for it or not.

OpenAI's chunks are made for adding up: strings grow, lists with an `index` are merged by it, everything else is
replaced. `delta` becomes `message`, and the chunk's type the answer's.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from server.errors import EngineFailed

# As much as an answer in one piece may have.
ANSWER_BYTES_MAX = 64 * 1024 * 1024
OBJECTS = {"chat.completion.chunk": "chat.completion"}
# Strings that name something instead of being part of a text.
NAMES = frozenset({"role", "id", "type", "object", "model", "finish_reason", "system_fingerprint", "name"})


class Assembly:
    """One answer, growing."""

    def __init__(self) -> None:
        self._answer: dict[str, Any] = {}
        self._bytes = 0

    def add(self, events: bytes) -> None:
        """Take whole events, as the meter gives them.

        Raises:
            EngineFailed: one of them is none, which the meter does not see where it does not look, or they do not end.
        """
        self._bytes += len(events)
        if self._bytes > ANSWER_BYTES_MAX:
            raise EngineFailed(f"The engine answered with more than {ANSWER_BYTES_MAX} bytes.")
        for event in events.split(b"\n\n"):
            text = event.removeprefix(b"data:").strip()
            if event.startswith(b"data:") and text != b"[DONE]":
                try:
                    _merge(self._answer, msgspec.json.decode(text, type=dict[str, Any]))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise EngineFailed("The engine sent an event that is no JSON object.") from error

    def body(self) -> bytes:
        """The whole answer, as the engine would have given it."""
        answer = dict(self._answer)
        kind = answer.get("object")
        answer["object"] = OBJECTS.get(kind, kind) if isinstance(kind, str) else None
        answer["choices"] = [_choice(choice) for choice in sorted(_objects(answer.get("choices")), key=_index)]
        return msgspec.json.encode(answer)


def _objects(items: object) -> list[dict[str, Any]]:
    """What of a list can be looked into; engines have put other things there."""
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    if "delta" not in choice:
        return choice
    rest = {name: value for name, value in choice.items() if name != "delta"}
    # A message names who speaks, and has a content even where it only calls a tool.
    message = {"role": "assistant", "content": None} | (choice["delta"] if isinstance(choice["delta"], dict) else {})
    for call in _objects(message.get("tool_calls")):
        call.pop("index", None)
    return rest | {"message": message}


def _index(item: dict[str, Any]) -> int:
    index = item.get("index", 0)
    return index if isinstance(index, int) else 0


def _merge(whole: dict[str, Any], part: dict[str, Any]) -> None:
    for name, new in part.items():
        old = whole.get(name)
        if old is None:
            whole[name] = _indexed(new)
        elif isinstance(old, str) and isinstance(new, str) and name not in NAMES:
            whole[name] = old + new
        elif isinstance(old, dict) and isinstance(new, dict) and name != "usage":
            _merge(old, new)
        elif isinstance(old, list) and isinstance(new, list):
            _merge_lists(old, new)
        elif new is not None:
            whole[name] = new


def _indexed(new: Any) -> Any:  # noqa: ANN401 (JSON)
    """A first value; a list may already hold two parts of one item."""
    if not isinstance(new, list):
        return new
    merged: list[Any] = []
    _merge_lists(merged, new)
    return merged


def _merge_lists(old: list[Any], new: list[Any]) -> None:
    for item in new:
        if not (isinstance(item, dict) and isinstance(item.get("index"), int)):
            old.append(item)
            continue
        same = next((known for known in _objects(old) if known.get("index") == item["index"]), None)
        if same is None:
            same = {"index": item["index"]}
            old.append(same)
        _merge(same, item)


def answer_object(body: bytes, engine: str) -> dict[str, Any]:
    """The JSON object of an answer in one piece. Raises EngineFailed where it is none."""
    try:
        message = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineFailed(f"Engine {engine} answered with something that is not JSON.") from error
    if not isinstance(message, dict) or message.get("error"):
        raise EngineFailed(f"Engine {engine} answered with something that is no answer.")
    return message


async def assembled(stream: AsyncIterator[bytes]) -> bytes:
    """The answer in one piece."""
    assembly = Assembly()
    async for events in stream:
        assembly.add(events)
    return assembly.body()
