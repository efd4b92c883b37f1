"""What an answer says, taken out of the bytes of its stream.

Fed at checkpoints with what has come since the last one, in whole events. It is forgiving: what cannot be read is left
out, since the client has got it as it is.

Of a council it keeps what its `summary` will say, from the first event on: who sits, how far each has come, the
verdict. Its members' texts are parts of their own, in the order in which they began. What stands in `reasoning_content`
of a council are these texts once more, for clients that do not know them.
"""

import json
from typing import Any

import msgspec
from msgspec import Struct

from server.conversations.texts import mended
from server.council.events import OVER, Allocated, Content, Event, Joined, Member, Summary, Text, Usage, Verdict

EVENT_END = b"\n\n"
# Of an answer from a cloud (server/cloud/answering.py).
CLOUD_FIELDS = ("provider", "model", "form", "unrestored")


class Part(Struct, kw_only=True):
    """What one member did at one time; it may speak again, as the same or in another role."""

    label: str
    model: str
    role: str
    engine: str = ""
    state: str = "waiting"
    reason: str | None = None
    usage: Usage | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None
    # What it said, piece by piece.
    texts: list[str] = []

    @property
    def text(self) -> str:
        """What it said."""
        return mended("".join(self.texts))

    @property
    def output_tokens(self) -> int | None:
        """As its engine counted."""
        return None if self.usage is None else self.usage.completion_tokens


class Transcript:
    """One answer, growing.

    Attributes:
        first_token_ms: since it was asked; None until there is text.
        finish_reason, input_tokens, output_tokens: as the stream told; output_tokens are counted until it tells.
        cloud: who answered outside of this box, and how; None: nobody.
    """

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.first_token_ms: int | None = None
        self.input_tokens: int | None = None
        self.is_counted = False
        self.parts: list[Part] = []
        self.cloud: dict[str, Any] | None = None
        self._counted = 0
        self._told: int | None = None
        self._content: list[str] = []
        self._thinking: list[str] = []
        self._allocated: Allocated | None = None
        self._verdict: Verdict | None = None
        self._summary: Summary | None = None
        self._engines: dict[str, tuple[str, str]] = {}

    @property
    def content(self) -> str:
        """The answer."""
        return mended("".join(self._content))

    @property
    def thinking(self) -> str:
        """What its model thought."""
        return mended("".join(self._thinking))

    @property
    def output_tokens(self) -> int | None:
        """As the stream told, else as counted; of a council that broke off nobody knows."""
        if self._told is not None:
            return self._told
        return None if self._allocated is not None else self._counted

    @property
    def council(self) -> dict[str, Any] | None:
        """How a council was set up and how far it came, in the shape of the stream's `summary`."""
        if self._summary is not None:
            return _object(msgspec.to_builtins(self._summary))
        told = self._allocated
        if told is None:
            return None
        members = [{name: value for name, value in _fields(part).items() if name != "texts"} for part in self.parts]
        setting = {name: getattr(told, name) for name in ("id", "strategy", "wanted", "size", "reason", "binding")}
        rest = {"steps": told.steps, "chair": told.chair, "members": members, "verdict": self._verdict, "usage": None}
        return _object({"type": "summary", **setting, **msgspec.to_builtins(rest)})

    def read(self, events: bytes, at_ms: int) -> None:
        """Take whole events that came `at_ms` after the question."""
        for event in events.split(EVENT_END):
            if event.startswith(b"data:") and (message := _message(event[5:].strip())) is not None:
                self._read(message, at_ms)

    def _read(self, message: dict[str, Any], at_ms: int) -> None:
        ours = message.get("wirthforge")
        council = ours.get("council") if isinstance(ours, dict) else None
        if isinstance(council, dict) and (event := _event(council)) is not None:
            self._hear(event)
        cloud = ours.get("cloud") if isinstance(ours, dict) else None
        if isinstance(cloud, dict) and ("provider" in cloud or self.cloud is not None):
            # What could not be restored is told at the end.
            told = {name: cloud[name] for name in CLOUD_FIELDS if name in cloud}
            self.cloud = {"unrestored": [], **(self.cloud or {}), **_object(told)}
        choices = message.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(choice, dict):
            self._say(choice, is_council=self._allocated is not None, at_ms=at_ms)
        usage = message.get("usage")
        if isinstance(usage, dict):
            self.input_tokens = _count(usage.get("prompt_tokens"))
            self._told = _count(usage.get("completion_tokens"))

    def _say(self, choice: dict[str, Any], *, is_council: bool, at_ms: int) -> None:
        delta = choice.get("delta")
        said = delta if isinstance(delta, dict) else {}
        text, thought = said.get("content"), said.get("reasoning_content") or said.get("reasoning")
        if isinstance(thought, str) and thought and not is_council:
            self._thinking.append(thought)
        if isinstance(text, str) and text:
            self._content.append(text)
        if (isinstance(text, str) and text) or (isinstance(thought, str) and thought):
            self._counted += 1
            if self.first_token_ms is None:
                self.first_token_ms = at_ms
        if isinstance(reason := choice.get("finish_reason"), str):
            self.finish_reason = mended(reason)

    def _hear(self, event: Event) -> None:
        match event:
            case Allocated():
                self._allocated = event
                self._engines |= {seat.label: (seat.model, seat.engine) for seat in event.members}
            case Joined():
                self._engines[event.label] = (event.model, event.engine)
            case Member():
                self._progress(event)
            case Text():
                part = self._part(event.label, event.role)
                if not event.is_thought:
                    part.texts.append(event.text)
            case Content():
                if event.is_restart:
                    self._content.clear()
            case Verdict():
                self._verdict = event
            case Summary():
                self._summary = event

    def _progress(self, event: Member) -> None:
        part = self._part(event.label, event.role, is_new=event.state not in OVER)
        part.model, part.state = event.model, event.state
        part.reason = event.reason or part.reason
        part.usage = event.usage or part.usage
        part.first_token_ms = event.first_token_ms if event.first_token_ms is not None else part.first_token_ms
        part.total_ms = event.total_ms if event.total_ms is not None else part.total_ms

    def _part(self, label: str, role: str, *, is_new: bool = False) -> Part:
        """What the member does now; a new one where it has ended and begins again."""
        for part in reversed(self.parts):
            if (part.label, part.role) == (label, role):
                if is_new and part.state in OVER and role != "member":
                    break
                return part
        model, engine = self._engines.get(label, ("", ""))
        self.parts.append(Part(label=label, model=model, engine=engine, role=role))
        return self.parts[-1]


def _event(told: dict[str, Any]) -> Event | None:
    """One of a council's events; engines may send what looks like one."""
    try:
        event: Event = msgspec.convert(told, Event)
    except msgspec.ValidationError:
        return None
    return event


def _fields(part: Part) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(part)
    return fields


def _message(data: bytes) -> dict[str, Any] | None:
    """A JSON object, if it is one. Engines have sent halves of surrogate pairs, which only the slower reader takes."""
    try:
        message = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            message = json.loads(data.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None
    return message if isinstance(message, dict) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62 else None


def _object(told: dict[str, Any]) -> dict[str, Any]:
    return {mended(str(name)): _mended(each) for name, each in told.items()}


def _mended(value: Any) -> Any:  # noqa: ANN401 (JSON)
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, dict):
        return _object(value)
    if isinstance(value, list | tuple):
        return [_mended(each) for each in value]
    return value
