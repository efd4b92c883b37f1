"""A council's events as OpenAI's clients read them, and as ours does.

Every chunk is an ordinary chunk of the model that was asked for, with the event in `wirthforge.council`. Clients that
know nothing of councils show what stands in `reasoning_content`: the leader's text while it grows, and each other
member's as one block when it has ended, so that two texts never mix. The answer itself is `content`.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from server.council.events import Allocated, Content, Event, Joined, Member, Report, Summary, Text
from server.messages import ModelRequest

DONE = b"data: [DONE]\n\n"
# For clients that cannot take back what they have shown; ours does.
AGAIN = "\n\n[The answer broke off and begins again.]\n\n"
OBJECTS = {"chat.completions": "chat.completion", "completions": "text_completion"}


class Encoder:
    """The chunks of one stream.

    Args:
        is_solo: one model answers, so what it says is the answer, at once.
    """

    def __init__(self, request: ModelRequest, created_s: int, *, is_solo: bool = False) -> None:
        self._request = request
        self._is_chat = request.surface == "chat.completions"
        self._head = {
            "id": f"{'chatcmpl' if self._is_chat else 'cmpl'}-{request.id}",
            "object": "chat.completion.chunk" if self._is_chat else "text_completion",
            "created": created_s,
            "model": request.model,
        }
        self._thoughts = _Thoughts()
        self._is_solo = is_solo
        self._said = ""
        self._has_begun = False

    def event(self, event: Event) -> bytes:
        """The chunk of an event. Content that begins anew is told apart by our own clients only."""
        extension = {} if isinstance(event, Content) and not event.is_restart else {"council": event}
        if isinstance(event, Content):
            if self._is_solo and event.text == self._said:
                return b""
            again = self._chunk({"content": AGAIN}, {}) if event.is_restart else b""
            return again + self._chunk({"content": event.text}, extension)
        if self._is_solo and isinstance(event, Text) and event.role == "member" and not event.is_thought:
            self._said += event.text
            return self._chunk({"content": event.text}, extension)
        thought = self._thoughts.of(event)
        return self._chunk({"reasoning_content": thought} if thought else {}, extension)

    def end(self, summary: Summary, reason: str) -> bytes:
        """The last chunks: the end, usage if it was asked for, and that there is no more."""
        last = self._chunk({}, {"council": summary}, reason)
        if self._request.wants_usage:
            last += _data({**self._head, "choices": [], "usage": usage_of(summary)})
        return last + DONE

    def _chunk(self, delta: dict[str, str], extension: dict[str, Any], reason: str | None = None) -> bytes:
        if self._is_chat:
            role = {} if self._has_begun else {"role": "assistant"}
            choice: dict[str, Any] = {"index": 0, "delta": role | delta, "finish_reason": reason}
        else:
            choice = {"index": 0, "text": delta.get("content", ""), "logprobs": None, "finish_reason": reason}
        self._has_begun = True
        ours = {"wirthforge": extension} if extension else {}
        return _data({**self._head, "choices": [choice], **ours})


class _Thoughts:
    """Members' texts as one text, in which none interrupts another."""

    def __init__(self) -> None:
        self._live: tuple[str, str] | None = None
        self._held: dict[tuple[str, str], list[str]] = {}
        self._names: dict[str, str] = {}
        self._ended: list[tuple[str, str]] = []
        self._is_empty = True

    def of(self, event: Event) -> str:
        """What the event adds."""
        match event:
            case Allocated():
                self._names = {each.label: each.model for each in event.members}
            case Joined():
                self._names[event.label] = event.model
            case Text():
                return self._text((event.label, event.role), event.text)
            case Member() if event.role != "chair" and event.total_ms is not None:
                self._names.setdefault(event.label, event.model)
                return self._end((event.label, event.role))
            case _:
                pass
        return ""

    def _text(self, turn: tuple[str, str], text: str) -> str:
        if self._live is None:
            self._live = turn
            return self._title(turn) + "".join(self._held.pop(turn, [])) + text
        if self._live == turn:
            return text
        self._held.setdefault(turn, []).append(text)
        return ""

    def _end(self, turn: tuple[str, str]) -> str:
        if turn != self._live:
            self._ended.append(turn)
            if self._live is not None:
                return ""
        self._live = None
        blocks = [self._title(each) + "".join(texts) for each in self._ended if (texts := self._held.pop(each, None))]
        self._ended.clear()
        return "".join(blocks)

    def _title(self, turn: tuple[str, str]) -> str:
        label, role = turn
        about = "" if role == "member" else f" · {role}"
        before, self._is_empty = "" if self._is_empty else "\n\n", False
        return f"{before}[{label} · {self._names.get(label, '')}{about}]\n"


def whole(request: ModelRequest, created_s: int, content: str, summary: Summary, reason: str) -> bytes:
    """The answer in one piece."""
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": reason}
    if request.surface == "chat.completions":
        thoughts = _reasoning(summary.members)
        choice["message"] = {"role": "assistant", "content": content, "reasoning_content": thoughts}
    else:
        choice["text"] = content
    head = "chatcmpl" if request.surface == "chat.completions" else "cmpl"
    return msgspec.json.encode(
        {
            "id": f"{head}-{request.id}",
            "object": OBJECTS[request.surface],
            "created": created_s,
            "model": request.model,
            "choices": [choice],
            "usage": usage_of(summary),
            "wirthforge": {"council": summary},
        }
    )


def _reasoning(members: Sequence[Report]) -> str:
    said = [each for each in members if each.text and each.role != "chair"]
    return "\n\n".join(f"[{each.label} · {each.model}]\n{each.text}" for each in said)


def usage_of(summary: Summary) -> dict[str, Any]:
    """The sum of all members in OpenAI's words; by member it stands in the extension."""
    usage = summary.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _data(message: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(message) + b"\n\n"
