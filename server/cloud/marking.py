"""The events of a cloud's answer as the client of this box gets them: marked, and with the real words back.

The first event says who answers (`wirthforge.cloud`). Where pseudonyms were sent, the texts of the answer pass through
restorers, one for each text that grows: the answer, its thoughts, the arguments of each call of a tool. A restorer
holds back what may be the beginning of a pseudonym; what it holds at the end comes with the event that ends the
choice. Pseudonyms that nobody could put back are listed in an event of their own, before the last.

What a provider says in our own name (`wirthforge`) is taken out.
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from server.errors import EngineFailed

EVENT_END = b"\n\n"
DONE = b"data: [DONE]\n\n"
TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


class Restores(Protocol):
    """Puts the real words back into one text (server/privacy/restoring.py)."""

    def feed(self, text: str) -> str:
        """What can go on of the text so far."""
        ...

    def end(self) -> str:
        """What was held back."""
        ...

    @property
    def unrestored(self) -> list[str]:
        """Pseudonyms that stayed."""
        ...


MakeRestorer = Callable[[bool], Restores]


class Marking:
    """One answer.

    Args:
        about: who answers, and in which form it was asked.
        restorer: makes one for a text, with True for one that is JSON; None: nothing was replaced.
    """

    def __init__(self, about: dict[str, Any], restorer: MakeRestorer | None) -> None:
        self._about = about
        self._make = restorer
        self._has_begun = False
        self._frame: dict[str, Any] = {}
        # By choice, and by the field or the call of a tool.
        self._restorers: dict[tuple[int, str | int], Restores] = {}
        self._ended: list[Restores] = []

    @property
    def unrestored(self) -> list[str]:
        """Pseudonyms that nobody could put back, each once."""
        everyone = (*self._ended, *self._restorers.values())
        return list(dict.fromkeys(word for each in everyone for word in each.unrestored))

    def feed(self, events: bytes) -> bytes:
        """Whole events, as they go on. Raises EngineFailed where one is none."""
        if self._has_begun and self._make is None and b'"wirthforge"' not in events:
            return events
        return b"".join(self._event(event) for event in events.split(EVENT_END) if event.strip())

    def _event(self, event: bytes) -> bytes:
        text = event.removeprefix(b"data:").strip()
        if not event.startswith(b"data:"):
            return event + EVENT_END
        if text == b"[DONE]":
            return self._rest() + DONE
        try:
            message = msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EngineFailed("The provider sent an event that is no JSON object.") from error
        message.pop("wirthforge", None)
        if not self._has_begun:
            self._has_begun = True
            self._frame = {name: message.get(name) for name in ("id", "object", "created", "model")}
            message["wirthforge"] = {"cloud": self._about}
        if self._make is not None:
            for choice in _objects(message.get("choices")):
                self._restore(choice)
        return _data(message)

    def _restore(self, choice: dict[str, Any]) -> None:
        index = _index(choice)
        delta = choice.get("delta")
        said: dict[str, Any] = delta if isinstance(delta, dict) else {}
        for name in TEXTS:
            if isinstance(text := said.get(name), str) and text:
                said[name] = self._restorer(index, name).feed(text)
        for call in _objects(said.get("tool_calls")):
            function = call.get("function")
            called: dict[str, Any] = function if isinstance(function, dict) else {}
            if isinstance(tool := called.get("name"), str):
                called["name"] = self._whole(tool)
            if isinstance(text := called.get("arguments"), str):
                called["arguments"] = self._restorer(index, _index(call)).feed(text)
        if choice.get("finish_reason"):
            choice["delta"] = self._flushed(index, said)

    def _whole(self, text: str) -> str:
        """A text that comes in one piece: the name of a tool."""
        assert self._make is not None, "something was replaced"
        restorer = self._make(False)  # noqa: FBT003 (a callable takes no names)
        restored = restorer.feed(text) + restorer.end()
        self._ended.append(restorer)
        return restored

    def _flushed(self, index: int, said: dict[str, Any]) -> dict[str, Any]:
        """What is left of a choice, added to its last event."""
        for key in [key for key in self._restorers if key[0] == index]:
            restorer, (_, name) = self._restorers.pop(key), key
            self._ended.append(restorer)
            if not (rest := restorer.end()):
                continue
            if isinstance(name, str):
                said[name] = (said.get(name) or "") + rest
            else:
                calls = said.setdefault("tool_calls", [])
                calls.append({"index": name, "function": {"arguments": rest}})
        return said

    def _rest(self) -> bytes:
        """What a stream owes that ends: texts of choices without an end, and what could not be put back."""
        choices = [
            {"index": index, "delta": said, "finish_reason": None}
            for index in sorted({index for index, _ in self._restorers})
            if (said := self._flushed(index, {}))
        ]
        unrestored = self.unrestored
        if not choices and not unrestored:
            return b""
        ours = {"wirthforge": {"cloud": {"unrestored": unrestored}}} if unrestored else {}
        return _data({**self._frame, "choices": choices, **ours})

    def _restorer(self, choice: int, name: str | int) -> Restores:
        restorer = self._restorers.get((choice, name))
        if restorer is None:
            assert self._make is not None, "something was replaced"
            # A field of the answer, or the number of a call, whose arguments are JSON.
            restorer = self._restorers[choice, name] = self._make(isinstance(name, int))
        return restorer


def _objects(items: object) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _index(item: dict[str, Any]) -> int:
    index = item.get("index", 0)
    return index if isinstance(index, int) else 0


def _data(message: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(message) + EVENT_END
