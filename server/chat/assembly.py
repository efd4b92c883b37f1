"""Puts a stream together again, for a client that wants its answer in one piece.

Engines are always asked to stream: a stream is counted while it grows, and stops when its client leaves. llama.cpp computes
an answer that is not streamed to its end, whether anybody waits for it or not.

OpenAI's chunks are made for adding up: strings grow, lists with an `index` are merged by it, everything else is replaced. `delta`
becomes `message`, and the chunk's type the answer's.
"""

from typing import Any

import msgspec

OBJECTS = {"chat.completion.chunk": "chat.completion"}
# Strings that name something instead of being part of a text.
NAMES = frozenset({"role", "id", "type", "object", "model", "finish_reason", "system_fingerprint", "name"})


class Assembly:
    """One answer, growing."""

    def __init__(self) -> None:
        self._answer: dict[str, Any] = {}

    def add(self, events: bytes) -> None:
        """Take whole events, as the meter gives them."""
        for event in events.split(b"\n\n"):
            text = event.removeprefix(b"data:").strip()
            if event.startswith(b"data:") and text != b"[DONE]":
                _merge(self._answer, msgspec.json.decode(text))

    def body(self) -> bytes:
        """The whole answer, as the engine would have given it."""
        answer = dict(self._answer)
        answer["object"] = OBJECTS.get(answer.get("object", ""), answer.get("object"))
        answer["choices"] = [_choice(choice) for choice in sorted(answer.get("choices") or [], key=_index)]
        return msgspec.json.encode(answer)


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    if "delta" not in choice:
        return choice
    rest = {name: value for name, value in choice.items() if name != "delta"}
    # A message names who speaks, and has a content even where it only calls a tool.
    message = {"role": "assistant", "content": None} | (choice["delta"] or {})
    for call in message.get("tool_calls") or []:
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
        same = next((known for known in old if known.get("index") == item["index"]), None)
        if same is None:
            same = {"index": item["index"]}
            old.append(same)
        _merge(same, item)
