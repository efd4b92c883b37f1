"""Any provider with OpenAI's chat completions: OpenAI itself, Mistral, DeepSeek, OpenRouter, a server of one's own.

The fields are those of OpenAI's API as openai-python 3.54 has them, as far as a server that only resembles it knows
them too. `leaves_out` of a model names what it refuses none the less: `temperature` for models that reason, `seed` or
`stream_options` for Mistral.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from server.cloud import bodies
from server.cloud.bodies import Form, Tool, Turn
from server.cloud.client import Client
from server.cloud.events import StreamBroken, count_of, event, read
from server.cloud.protocol import CloudModel, Counted, Kind
from server.cloud.replies import Streamed
from server.engines.openai_compatible import OPENAI_HOSTS
from server.errors import EngineFailed
from server.messages import ModelRequest

CHAT, MODELS = "/chat/completions", "/models"
DONE = b"data: [DONE]\n\n"
# Sampling: numbers that go on as they are.
NUMBERS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
INTEGERS = ("seed", "top_logprobs")


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model] | None


class OpenAIProvider:
    """A provider that speaks OpenAI's API."""

    kind: Kind = "openai"

    def __init__(self, client: Client) -> None:
        self._client = client
        # OpenAI's own models refuse the answer's bound by its older name; others know no newer one.
        self._is_openai = (urlsplit(client.url).hostname or "").endswith(OPENAI_HOSTS)

    @staticmethod
    def headers(key: str) -> dict[str, str]:
        """What carries the key."""
        return {"Authorization": f"Bearer {key}"} if key else {}

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
        fields: dict[str, Any] = {
            "model": model.name,
            "messages": [self._message(turn) for turn in bodies.turns_of(body)],
            bodies.BOUNDS[0 if self._is_openai else 1]: bodies.output_tokens_of(body, model),
        }
        fields |= {name: value for name in NUMBERS if (value := bodies.number(body, name)) is not None}
        fields |= {name: value for name in INTEGERS if (value := bodies.integer(body, name)) is not None}
        if (answers := bodies.answers_of(body)) > 1:
            fields["n"] = answers
        if body.get("logprobs") is True:
            fields["logprobs"] = True
        if stops := bodies.stops_of(body):
            fields["stop"] = list(stops)
        fields |= _tools(body)
        if (form := bodies.form_of(body)) is not None:
            fields["response_format"] = _form(form)
        if isinstance(effort := body.get("reasoning_effort"), str):
            fields["reasoning_effort"] = effort
        return bodies.encoded(fields | {"stream": True, "stream_options": {"include_usage": True}}, model)

    async def send(self, body: bytes, *, request_id: str) -> Streamed:
        """See `Provider.send`."""
        return await self._client.post(CHAT, body, Passing(), request_id=request_id)

    def _message(self, turn: Turn) -> dict[str, Any]:
        role = "system" if turn.role == "developer" and not self._is_openai else turn.role
        content: object = [{"type": "text", "text": text} for text in turn.texts]
        if not turn.is_list:
            content = turn.texts[0] if turn.texts else None if turn.calls else ""
        message: dict[str, Any] = {"role": role, "content": content}
        if turn.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in turn.calls
            ]
        return message | ({"tool_call_id": turn.call_id} if turn.role == "tool" else {})


def listed(name: str, page: bytes) -> tuple[str, ...]:
    """Names of models on a page that lists them; OpenAI and Anthropic write it alike. Raises EngineFailed."""
    try:
        return tuple(model.id for model in msgspec.json.decode(page, type=_Models).data or ())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineFailed(f"Provider {name} lists its models in a form that is not its API's.") from error


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    tools = bodies.tools_of(body)
    if not tools:
        return {}
    fields: dict[str, Any] = {"tools": [{"type": "function", "function": _function(tool)} for tool in tools]}
    choice, name = bodies.choice_of(body)
    if choice:
        fields["tool_choice"] = {"type": "function", "function": {"name": name}} if name else choice
    if isinstance(parallel := body.get("parallel_tool_calls"), bool):
        fields["parallel_tool_calls"] = parallel
    return fields


def _function(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    return function if tool.strict is None else function | {"strict": tool.strict}


def _form(form: Form) -> dict[str, Any]:
    if form.schema is None:
        return {"type": "json_object"}
    told: dict[str, Any] = {"name": form.name, "schema": form.schema}
    return {"type": "json_schema", "json_schema": told if form.strict is None else told | {"strict": form.strict}}


class Passing:
    """OpenAI's events, as they are."""

    def __init__(self) -> None:
        self.usage: Counted | None = None
        self.is_complete = False
        self._is_finished = False

    def feed(self, data: bytes) -> bytes:
        """See `Translation.feed`."""
        if data == b"[DONE]":
            self.is_complete = True
            return DONE
        message = read(data)
        if message.get("error"):
            raise StreamBroken("failed in the middle of its answer")
        usage = message.get("usage")
        if (written := count_of(usage, "completion_tokens")) is not None:
            self.usage = Counted(count_of(usage, "prompt_tokens") or 0, written)
        choices = message.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            self._is_finished |= isinstance(choice, dict) and bool(choice.get("finish_reason"))
        return event(msgspec.Raw(data))

    def end(self) -> bytes:
        """A whole answer may lack the last event. See `Translation.end`."""
        if not self._is_finished:
            raise StreamBroken("stopped in the middle of its answer")
        self.is_complete = True
        return DONE
