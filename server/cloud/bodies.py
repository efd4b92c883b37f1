"""What of a request goes to a provider: the parts that every provider knows, and nothing else.

A request is read into these parts, and the adapters write what they were given. What nobody reads here cannot leave:
extensions of engines, salts, `user`, `metadata`, `store`, `service_tier`, names beside messages. Two sorts of fields
are not dropped but refused, and the request stays local: those with content into which nobody here looks (pictures,
sound, files), and those without which the answer would be another (a grammar, a bias of tokens).
"""

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, Literal, TypeGuard, cast, get_args

import msgspec
from msgspec import Struct

from server.cloud.protocol import CloudModel
from server.errors import InvalidRequest
from server.messages import ModelRequest

# Two million tokens at the least; no model reads as much.
BODY_BYTES_MAX = 8 * 1024 * 1024
NOT_FOR_CLOUD = "not_for_cloud"
# The answer's bound, by its newer and its older name.
BOUNDS = ("max_completion_tokens", "max_tokens")
# Extensions of engines, and old or rare fields of OpenAI's, that rule the form of the answer.
RULING = frozenset(
    {
        "audio",
        "chat_template",
        "continue_final_message",
        "function_call",
        "functions",
        "grammar",
        "guided_choice",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "json_schema",
        "logit_bias",
        "prediction",
        "regex",
        "ebnf",
        "structured_outputs",
        "web_search_options",
    }
)

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: frozenset[str] = frozenset(get_args(Role))


class Call(Struct, frozen=True):
    """A call of a tool, as a model wrote it; `arguments` is JSON, or should be."""

    id: str
    name: str
    arguments: str


class Turn(Struct, frozen=True):
    """A message.

    Attributes:
        texts: its parts; `is_list`: it was written as such.
        call_id: whose result it is, where a tool speaks.
    """

    role: Role
    texts: tuple[str, ...]
    is_list: bool = False
    calls: tuple[Call, ...] = ()
    call_id: str = ""


class Tool(Struct, frozen=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Form(Struct, frozen=True):
    """The form that the answer is to have: any JSON object, or one by a schema."""

    schema: dict[str, Any] | None = None
    name: str = "answer"
    strict: bool | None = None


def refusal(what: str, param: str | None = None) -> InvalidRequest:
    """Why a request cannot go to a provider."""
    return InvalidRequest(f"This request stays on the box: {what}.", code=NOT_FOR_CLOUD, param=param)


def check(request: ModelRequest, body: Mapping[str, Any], model: CloudModel) -> None:
    """Refuse what cannot go to any provider. Raises InvalidRequest."""
    if request.surface != "chat.completions":
        raise refusal("only chats go to a cloud")
    for name in sorted(RULING & body.keys()):
        if body[name] not in (None, False, "", [], {}):
            raise refusal(f"no cloud knows {name}", name)
    if any(kind != "text" for kind in _list(body.get("modalities"), "modalities")):
        raise refusal("its answer is not only text", "modalities")
    if model.context_tokens is not None and request.input_tokens >= model.context_tokens:
        raise refusal(f"it is longer than {model.name} can read", "messages")


def turns_of(body: Mapping[str, Any]) -> tuple[Turn, ...]:
    """Its messages. Raises InvalidRequest where there are none, or one is more than text."""
    turns = tuple(map(_turn, _objects(body.get("messages"), "messages")))
    if not turns:
        raise refusal("it has no messages", "messages")
    return turns


def _turn(message: dict[str, Any]) -> Turn:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise refusal("a message has a role that no cloud knows", "messages")
    content = message.get("content")
    if content is None or isinstance(content, str):
        texts: tuple[str, ...] = (content,) if content else ()
    else:
        texts = tuple(map(_text, _objects(content, "messages")))
    calls = tuple(map(_call, _objects(message.get("tool_calls"), "messages")))
    return Turn(
        cast("Role", role),
        texts,
        isinstance(content, list),
        calls if role == "assistant" else (),
        _string(message, "tool_call_id") if role == "tool" else "",
    )


def _text(part: dict[str, Any]) -> str:
    if part.get("type") != "text":
        raise refusal("it has pictures, sound or files, into which nobody looks before they leave", "messages")
    return _string(part, "text")


def _call(call: dict[str, Any]) -> Call:
    function = call.get("function")
    if call.get("type", "function") != "function" or not isinstance(function, dict):
        raise refusal("it has calls of tools that are no functions", "messages")
    return Call(_string(call, "id"), _string(function, "name"), _string(function, "arguments"))


def tools_of(body: Mapping[str, Any]) -> tuple[Tool, ...]:
    """Functions that the model may call. Raises InvalidRequest for tools that are none."""
    return tuple(map(_tool, _objects(body.get("tools"), "tools")))


def _tool(tool: dict[str, Any]) -> Tool:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        raise refusal("it has tools that are no functions", "tools")
    parameters, description, strict = (function.get(name) for name in ("parameters", "description", "strict"))
    return Tool(
        _string(function, "name"),
        description if isinstance(description, str) else "",
        parameters if isinstance(parameters, dict) else None,
        strict if isinstance(strict, bool) else None,
    )


def choice_of(body: Mapping[str, Any]) -> tuple[str, str]:
    """Which tool is to be called: ("", ""), ("auto" | "none" | "required", ""), or ("function", its name)."""
    match body.get("tool_choice"):
        case None:
            return "", ""
        case "auto" | "none" | "required" as word:
            return word, ""
        case {"type": "function", "function": {"name": str(name)}}:
            return "function", name
        case _:
            raise refusal("it chooses among tools in a way that no cloud knows", "tool_choice")


def form_of(body: Mapping[str, Any]) -> Form | None:
    """The form of the answer, where it is not free. Raises InvalidRequest for one that no cloud knows."""
    match body.get("response_format"):
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return Form()
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)} as told}:
            name, strict = told.get("name"), told.get("strict")
            return Form(
                cast("dict[str, Any]", schema),
                name if isinstance(name, str) else "answer",
                strict if isinstance(strict, bool) else None,
            )
        case _:
            raise refusal("it asks for a form that no cloud knows", "response_format")


def stops_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Texts at which the answer ends."""
    stop = body.get("stop")
    stops = (stop,) if isinstance(stop, str) else tuple(_list(stop, "stop"))
    if not all(isinstance(text, str) for text in stops):
        raise refusal("it ends at something that is no text", "stop")
    return cast("tuple[str, ...]", stops)


def answers_of(body: Mapping[str, Any]) -> int:
    """How many answers it asks for."""
    return max(integer(body, "n") or 1, 1)


def output_tokens_of(body: Mapping[str, Any], model: CloudModel) -> int:
    """The bound of one answer: what the request says, and no more than the model's."""
    asked = [count for name in BOUNDS if _is_count(count := body.get(name))]
    return min(*asked, model.output_tokens_max) if asked else model.output_tokens_max


def number(body: Mapping[str, Any], name: str) -> float | None:
    """A field that is a number; anything else is not sent."""
    value = body.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return value if is_number else None


def integer(body: Mapping[str, Any], name: str) -> int | None:
    """A field that is a whole number; anything else is not sent."""
    value = number(body, name)
    return value if isinstance(value, int) else None


def encoded(fields: Mapping[str, Any], model: CloudModel) -> bytes:
    """The bytes on the wire, without what this model refuses. Raises InvalidRequest where they are too many or none."""
    try:
        body = msgspec.json.encode({name: value for name, value in fields.items() if name not in model.leaves_out})
    except (ValueError, OverflowError, RecursionError) as error:
        raise refusal("it holds a number or text that JSON cannot carry") from error
    if len(body) > BODY_BYTES_MAX:
        raise refusal(f"it has {len(body)} bytes, and no more than {BODY_BYTES_MAX} leave at a time", "messages")
    return body


def _objects(value: object, param: str) -> Iterator[dict[str, Any]]:
    for item in _list(value, param):
        if not isinstance(item, dict):
            raise refusal(f"{param} holds something that is no object", param)
        yield item


def _list(value: object, param: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise refusal(f"{param} is no list", param)
    return value


def _string(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise refusal(f"a {name} is no text", "messages")
    return value


def _is_count(value: Any) -> TypeGuard[int]:  # noqa: ANN401 (JSON)
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
