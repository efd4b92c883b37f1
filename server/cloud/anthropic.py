"""Anthropic's Messages API, version 2023-06-01, as anthropic-sdk-python 0.121 describes it.

What differs from OpenAI's API, and what becomes of it here:

- System messages are one field at the top, wherever they stood.
- Results of tools are parts of a user's turn; several in a row are one turn.
- `max_tokens` is required: the request's bound, else the model's.
- `temperature` ends at 1, and newer models take it or `top_p`, not both: `top_p` is left out then. Those from Claude
  Opus 4.7 on take neither: an admin names them in the model's `leaves_out`.
- There are no several answers, no log-probabilities, no penalties, no seed. The first two are refused, since their
  client waits for them; the others only tune the dice, and are left out.
- What the model thinks is told apart, and becomes `reasoning_content`; its signatures are dropped.
- Events of kinds that came later are to be skipped, as its documentation asks for.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from server.cloud import bodies
from server.cloud.bodies import Turn, refusal
from server.cloud.client import Client, error_name
from server.cloud.events import StreamBroken, count_of, event, read
from server.cloud.openai import DONE, listed
from server.cloud.protocol import CloudModel, Counted, Kind
from server.cloud.replies import Streamed
from server.messages import ModelRequest

VERSION = "2023-06-01"
MESSAGES, MODELS = "/messages", "/models?limit=1000"
TEMPERATURE_MAX = 1.0
EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})
FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    # Its own tools have paused, of which none is ever asked for.
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
# What of a prompt is counted apart; the sum is all that was read.
INPUT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class AnthropicProvider:
    """A provider that speaks Anthropic's API."""

    kind: Kind = "anthropic"

    def __init__(self, client: Client) -> None:
        self._client = client

    @staticmethod
    def headers(key: str) -> dict[str, str]:
        """What carries the key."""
        return {"anthropic-version": VERSION} | ({"x-api-key": key} if key else {})

    @property
    def name(self) -> str:
        """As the admin called it."""
        return self._client.name

    @property
    def lets_pass(self) -> bool:
        """See `Provider.lets_pass`."""
        return self._client.rest_ms == 0

    async def models(self) -> tuple[str, ...]:
        """See `Provider.models`."""
        return listed(self.name, await self._client.get(MODELS))

    def compose(self, request: ModelRequest, body: dict[str, Any], model: CloudModel) -> bytes:
        """See `Provider.compose`."""
        bodies.check(request, body, model)
        if bodies.answers_of(body) > 1:
            raise refusal("Anthropic gives one answer at a time", "n")
        if body.get("logprobs") is True:
            raise refusal("Anthropic tells no log-probabilities", "logprobs")
        turns = bodies.turns_of(body)
        fields: dict[str, Any] = {
            "model": model.name,
            "max_tokens": bodies.output_tokens_of(body, model),
            "messages": _messages([turn for turn in turns if turn.role not in {"system", "developer"}]),
        }
        if rules := [text for turn in turns if turn.role in {"system", "developer"} for text in turn.texts if text]:
            fields["system"] = "\n\n".join(rules)
        fields |= _sampling(body)
        if stops := bodies.stops_of(body):
            if not all(text.strip() for text in stops):
                raise refusal("Anthropic ends no answer at blanks", "stop")
            fields["stop_sequences"] = list(stops)
        fields |= _tools(body)
        if output := _output(body):
            fields["output_config"] = output
        return bodies.encoded(fields | {"stream": True}, model)

    async def send(self, body: bytes, *, request_id: str) -> Streamed:
        """See `Provider.send`."""
        return await self._client.post(MESSAGES, body, Translating(self._client.now_s), request_id=request_id)


def _messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Turns of users and the assistant; what tools gave stands in a user's."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        role = "assistant" if turn.role == "assistant" else "user"
        parts = _parts(turn)
        if not parts:
            continue
        if turn.role == "tool" and messages and messages[-1]["content"][0]["type"] == "tool_result":
            messages[-1]["content"] += parts
        else:
            messages.append({"role": role, "content": parts})
    if not messages:
        raise refusal("nobody says anything in it", "messages")
    return messages


def _parts(turn: Turn) -> list[dict[str, Any]]:
    # A part without text is refused.
    texts: list[dict[str, Any]] = [{"type": "text", "text": text} for text in turn.texts if text]
    if turn.role == "tool":
        return [{"type": "tool_result", "tool_use_id": turn.call_id, "content": texts}]
    calls = [{"type": "tool_use", "id": c.id, "name": c.name, "input": _arguments(c.arguments)} for c in turn.calls]
    return texts + calls


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise refusal("it has a call of a tool whose arguments are no object", "messages")
    return arguments


def _sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if (temperature := bodies.number(body, "temperature")) is not None:
        fields["temperature"] = min(temperature, TEMPERATURE_MAX)
    elif (top_p := bodies.number(body, "top_p")) is not None:
        fields["top_p"] = top_p
    return fields


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    tools = bodies.tools_of(body)
    if not tools:
        return {}
    told: list[dict[str, Any]] = []
    for tool in tools:
        # A schema names a type, which OpenAI's API lets be guessed.
        described = {"description": tool.description} if tool.description else {}
        strict = {} if tool.strict is None else {"strict": tool.strict}
        schema = {"type": "object", "properties": {}} | (tool.parameters or {})
        told.append({"name": tool.name, **described, "input_schema": schema, **strict})
    choice, name = bodies.choice_of(body)
    alone = body.get("parallel_tool_calls") is False
    kinds = {"": "auto" if alone else "", "auto": "auto", "none": "none", "required": "any", "function": "tool"}
    if not (kind := kinds[choice]):
        return {"tools": told}
    chosen: dict[str, Any] = {"type": kind} | ({"name": name} if name else {})
    if alone and kind != "none":
        chosen["disable_parallel_tool_use"] = True
    return {"tools": told, "tool_choice": chosen}


def _output(body: Mapping[str, Any]) -> dict[str, Any]:
    output: dict[str, Any] = {}
    if (form := bodies.form_of(body)) is not None:
        if form.schema is None:
            raise refusal("Anthropic writes JSON by a schema only", "response_format")
        output["format"] = {"type": "json_schema", "schema": form.schema}
    effort = body.get("reasoning_effort")
    if effort == "minimal":
        effort = "low"
    if isinstance(effort, str) and effort in EFFORTS:
        output["effort"] = effort
    return output


class Translating:
    """Anthropic's events as OpenAI's. Keeps counts and names, no text.

    Args:
        created_s: when the answer began, in seconds since 1970, which Anthropic does not tell.
    """

    def __init__(self, created_s: int) -> None:
        self.usage: Counted | None = None
        self.is_complete = False
        self._frame: dict[str, Any] = {"object": "chat.completion.chunk", "created": created_s}
        self._counts: dict[str, int] = {}
        self._thought_tokens: int | None = None
        # The number of a call, by the number of its block.
        self._calls: dict[int, int] = {}
        self._finish: str | None = None

    def feed(self, data: bytes) -> bytes:
        """See `Translation.feed`."""
        message = read(data)
        match message.get("type"):
            case "message_start":
                return self._begin(message.get("message"))
            case "content_block_start":
                return self._block(_number(message), message.get("content_block"))
            case "content_block_delta":
                return self._delta(_number(message), message.get("delta"))
            case "message_delta":
                return self._near_end(message)
            case "message_stop":
                self.is_complete = True
                return self._usage() + DONE
            case "error":
                name = error_name(data)
                raise StreamBroken(f"failed in the middle of its answer{f' ({name})' if name else ''}")
            case _:
                return b""

    def end(self) -> bytes:
        """See `Translation.end`."""
        raise StreamBroken("stopped in the middle of its answer")

    def _begin(self, message: object) -> bytes:
        if not isinstance(message, dict):
            raise StreamBroken("began an answer that is none")
        self._frame |= {name: value for name in ("id", "model") if isinstance(value := message.get(name), str)}
        self._count(message.get("usage"))
        return self._choice({"role": "assistant", "content": ""})

    def _block(self, number: int, block: object) -> bytes:
        match block:
            case {"type": "text", "text": str(text)} if text:
                return self._choice({"content": text})
            case {"type": "thinking", "thinking": str(text)} if text:
                return self._choice({"reasoning_content": text})
            case {"type": "tool_use", "id": str(call_id), "name": str(name)}:
                place = self._calls.setdefault(number, len(self._calls))
                function = {"name": name, "arguments": ""}
                return self._choice(
                    {"tool_calls": [{"index": place, "id": call_id, "type": "function", "function": function}]}
                )
            case _:
                return b""

    def _delta(self, number: int, delta: object) -> bytes:
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                return self._choice({"content": text}) if text else b""
            case {"type": "thinking_delta", "thinking": str(text)}:
                return self._choice({"reasoning_content": text}) if text else b""
            case {"type": "input_json_delta", "partial_json": str(text)} if number in self._calls:
                call = {"index": self._calls[number], "function": {"arguments": text}}
                return self._choice({"tool_calls": [call]}) if text else b""
            case _:
                return b""

    def _near_end(self, message: dict[str, Any]) -> bytes:
        self._count(message.get("usage"))
        delta = message.get("delta")
        reason = delta.get("stop_reason") if isinstance(delta, dict) else None
        if not isinstance(reason, str) or self._finish is not None:
            return b""
        self._finish = FINISHES.get(reason, "stop")
        return self._choice({}, self._finish)

    def _count(self, usage: object) -> None:
        """Counts are of all so far; one that is not told again stays."""
        for name in (*INPUT_COUNTS, "output_tokens"):
            if (count := count_of(usage, name)) is not None:
                self._counts[name] = count
        if isinstance(usage, dict):
            thought = count_of(usage.get("output_tokens_details"), "thinking_tokens")
            self._thought_tokens = self._thought_tokens if thought is None else thought
        if "output_tokens" in self._counts:
            self.usage = Counted(sum(self._counts.get(name, 0) for name in INPUT_COUNTS), self._counts["output_tokens"])

    def _usage(self) -> bytes:
        if self.usage is None:
            return b""
        told: dict[str, Any] = {
            "prompt_tokens": self.usage.input_tokens,
            "completion_tokens": self.usage.output_tokens,
            "total_tokens": self.usage.input_tokens + self.usage.output_tokens,
            "prompt_tokens_details": {"cached_tokens": self._counts.get("cache_read_input_tokens", 0)},
        }
        if self._thought_tokens is not None:
            told["completion_tokens_details"] = {"reasoning_tokens": self._thought_tokens}
        return event(self._frame | {"choices": [], "usage": told})

    def _choice(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return event(self._frame | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _number(message: Mapping[str, Any]) -> int:
    """Of a block."""
    index = message.get("index")
    return index if isinstance(index, int) else 0
