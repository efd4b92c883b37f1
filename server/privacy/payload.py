"""Everything in an outbound body that a person could have written, as pieces of text with their places.

What leaves is a body, not a message: the system prompt, the history, what tools were told and what they answered, the
tools' own descriptions, file names, names of people, the keys of objects, and numbers. A detector that looks at the
last message only has looked at nothing. So the walk knows no schema: it takes every string, and leaves out only what
the wire format itself says (`"role": "user"`), which holds nothing of anybody's.

A `Part` says where its text came from; `with_texts` puts changed texts back at the same places.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

# Numbers shorter than this are counts and settings; a phone or card number has more digits.
DIGITS_MIN = 6

# Nobody nests a request deeper; what does is no body that we would compose.
DEPTH_MAX = 64

# Words that the wire formats prescribe (OpenAI's chat completions, Anthropic's messages; documents of 2026-10), as
# values of these keys. Any other value of theirs is a part.
_PRESCRIBED: dict[str, frozenset[str]] = {
    "role": frozenset({"system", "developer", "user", "assistant", "tool", "function"}),
    "type": frozenset(
        {
            "text", "image_url", "input_audio", "file", "function", "json_schema", "json_object", "object", "string",
            "number", "integer", "boolean", "array", "null", "tool_use", "tool_result", "image", "document", "base64",
            "url", "auto", "any", "none", "tool", "thinking", "enabled", "disabled", "ephemeral", "custom", "refusal",
        }
    ),
    "tool_choice": frozenset({"none", "auto", "required"}),
    "detail": frozenset({"auto", "low", "high"}),
    "reasoning_effort": frozenset({"none", "minimal", "low", "medium", "high"}),
}  # fmt: skip

# Keys that the wire formats prescribe; any other key is text that somebody chose.
_KEYS = frozenset(
    {
        "messages", "model", "role", "content", "type", "text", "name", "tool_calls", "tool_call_id", "id", "function",
        "arguments", "tools", "tool_choice", "parameters", "properties", "required", "description", "image_url", "url",
        "detail", "input_audio", "data", "format", "file", "file_data", "file_id", "filename", "system", "stop",
        "stop_sequences", "stream", "stream_options", "include_usage", "temperature", "top_p", "top_k", "seed", "n",
        "max_tokens", "max_completion_tokens", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs",
        "logit_bias", "response_format", "json_schema", "schema", "strict", "enum", "items", "additionalProperties",
        "parallel_tool_calls", "reasoning_effort", "input", "input_schema", "tool_use_id", "is_error", "source",
        "media_type", "cache_control", "metadata", "anyOf", "oneOf", "allOf", "default", "title", "refusal", "const",
        "disable_parallel_tool_use", "thinking", "budget_tokens", "index", "minimum", "maximum", "$ref", "$defs",
    }
)  # fmt: skip

# Settings at the top of a body; their numbers say how to answer, not what about.
_SETTINGS = frozenset({"seed", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "n"})


class Part(msgspec.Struct, frozen=True):
    """One piece of text of a body.

    Attributes:
        path: where it is: keys of objects and indices of lists, from the top.
        text: the text; positions in it count code points.
        is_key: the text is the last key of `path` itself, not the value under it.
    """

    path: tuple[str | int, ...]
    text: str
    is_key: bool = False


class TooDeep(ValueError):
    """The body is nested deeper than anybody needs."""


def parts_of(body: Mapping[str, Any]) -> tuple[Part, ...]:
    """Every text of `body`, in its order: strings, keys that somebody chose, and long numbers.

    Raises:
        TooDeep: it is nested deeper than `DEPTH_MAX`.
    """
    return tuple(_walk(body, ()))


def with_texts(body: Mapping[str, Any], parts: Sequence[Part], texts: Sequence[str]) -> dict[str, Any]:
    """A copy of `body` in which `texts` stand where `parts` came from; what did not change stays as it was.

    A number whose text changed becomes a string. Two keys that become equal are refused, so that nothing gets lost.

    Raises:
        ValueError: there are not as many texts as parts, or two keys of one object became the same.
    """
    if len(parts) != len(texts):
        raise ValueError("Each part needs its text.")
    values = {part.path: text for part, text in zip(parts, texts, strict=True) if not part.is_key and text != part.text}
    keys = {part.path: text for part, text in zip(parts, texts, strict=True) if part.is_key and text != part.text}
    changed = _rebuilt(body, (), values, keys)
    assert isinstance(changed, dict)
    return changed


def _walk(value: Any, path: tuple[str | int, ...]) -> Iterator[Part]:  # noqa: ANN401 - any JSON
    if len(path) > DEPTH_MAX:
        raise TooDeep(f"The request is nested deeper than {DEPTH_MAX} levels.")
    match value:
        case bool() | None | "":
            return
        case str() if not _is_prescribed(value, path):
            yield Part(path, value)
        case int() | float() if _is_long(value) and not (len(path) == 1 and path[0] in _SETTINGS):
            yield Part(path, repr(value))
        case Mapping():
            yield from (Part((*path, key), key, is_key=True) for key in value if key and key not in _KEYS)
            for key, below in value.items():
                yield from _walk(below, (*path, key))
        case list() | tuple():
            for index, below in enumerate(value):
                yield from _walk(below, (*path, index))
        case str() | int() | float():
            return
        case _:
            raise TypeError(f"A body holds no {type(value).__name__}.")


def _is_long(number: float) -> bool:
    return sum(map(str.isdigit, repr(number))) >= DIGITS_MIN


def _is_prescribed(value: str, path: tuple[str | int, ...]) -> bool:
    return bool(path) and value in _PRESCRIBED.get(str(path[-1]), ())


def _rebuilt(
    value: Any,  # noqa: ANN401 - any JSON
    path: tuple[str | int, ...],
    values: Mapping[tuple[str | int, ...], str],
    keys: Mapping[tuple[str | int, ...], str],
) -> Any:  # noqa: ANN401 - likewise
    if path in values:
        return values[path]
    if isinstance(value, Mapping):
        changed = {}
        for key, below in value.items():
            name = keys.get((*path, key), key)
            if name in changed:
                raise ValueError("Two fields of one object would get the same name.")
            changed[name] = _rebuilt(below, (*path, key), values, keys)
        return changed
    if isinstance(value, list | tuple):
        return [_rebuilt(below, (*path, index), values, keys) for index, below in enumerate(value)]
    return value
