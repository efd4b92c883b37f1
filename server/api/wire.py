"""OpenAI's requests, as far as the server looks into them.

A request is decoded once to plain objects and checked against these structs; what the structs do not name goes on to
the engine as it came, since engines know more fields than any gateway can list.
"""

from collections.abc import Iterable
from typing import Annotated, Any, cast
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from server.api.wishes import take_wish
from server.errors import InvalidRequest
from server.messages import ModelRequest, Surface

MESSAGES_MAX = 10_000
ANSWERS_MAX = 8
CHARACTERS_PER_TOKEN = 4
# A picture's tokens depend on the model; engines use some hundreds to a thousand.
TOKENS_PER_PICTURE = 500

# What a client may not decide in a shared house: where its request's cache lives, whose cache it reads, and who comes
# first.
PRIVATE_FIELDS = frozenset({"cache_salt", "id_slot", "cache_prompt", "priority"})

# The same in a part of a message: names of pictures that an engine may have in its cache, of whomever (vLLM, SGLang).
PRIVATE_PART_FIELDS = frozenset({"uuid", "content_hash"})

# OpenAI's word for "cheaper, when there is room".
REVOCABLE_TIER = "flex"

Tokens = Annotated[int, Meta(ge=0, le=1 << 31)]


class StreamOptions(Struct):
    """How a stream ends."""

    include_usage: bool = False


class ChatMessage(Struct):
    """One message: text, or parts of text and pictures."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class _Generation(Struct):
    """What both ways to generate share."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Tokens | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    service_tier: str | None = None

    def output_tokens_max(self) -> int | None:
        """The longest answer that the client wants."""
        return self.max_tokens


class ChatCompletionRequest(_Generation, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MESSAGES_MAX)]
    max_completion_tokens: Tokens | None = None

    def output_tokens_max(self) -> int | None:
        """Either name, as OpenAI has them; the newer one counts."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def inputs(self) -> list[int]:
        """The estimated tokens of each prompt."""
        return [sum(_tokens(message.content) for message in self.messages)]


class CompletionRequest(_Generation, kw_only=True):
    """POST /v1/completions."""

    prompt: str | list[str | int | list[int]]

    best_of: Annotated[int, Meta(ge=1)] | None = None

    def inputs(self) -> list[int]:
        """The estimated tokens of each prompt."""
        return _inputs(self.prompt)


class EmbeddingRequest(Struct, kw_only=True):
    """POST /v1/embeddings."""

    model: str
    input: str | list[str | int | list[int]]

    def inputs(self) -> list[int]:
        """The estimated tokens of each text."""
        return _inputs(self.input)


Wire = ChatCompletionRequest | CompletionRequest | EmbeddingRequest
STRUCTS: dict[Surface, type[Wire]] = {
    "chat.completions": ChatCompletionRequest,
    "completions": CompletionRequest,
    "embeddings": EmbeddingRequest,
}


def parse(surface: Surface, raw: bytes, request_id: UUID) -> ModelRequest:
    """Check a request.

    Raises:
        InvalidRequest: it is not JSON, or a field is missing or wrong; says which.
    """
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body is not JSON that can be read: {_reason(error)}.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise InvalidRequest("The body is not a JSON object.", code="invalid_json")
    try:
        wire = msgspec.convert(body, STRUCTS[surface])
    except (msgspec.ValidationError, RecursionError) as error:
        reason, _, place = str(error).partition(" - at `$")
        param = ".".join(part for part in (place.strip(".`"), _missing(reason)) if part) or None
        raise InvalidRequest(f"{f'{param}: ' if param else ''}{reason}.", param=param) from None
    for field in PRIVATE_FIELDS & body.keys():
        del body[field]
    _forget_names_of_pictures(body.get("messages"))
    wish = take_wish(body)
    # Ours to obey; engines may refuse a tier that they do not know.
    body.pop("service_tier", None)
    inputs = wire.inputs()
    answers = _answers(wire, len(inputs))
    generation = wire if isinstance(wire, ChatCompletionRequest | CompletionRequest) else None
    return ModelRequest(
        id=request_id,
        surface=surface,
        model=wire.model,
        body=body,
        is_stream=bool(generation and generation.stream),
        wants_usage=bool(generation and generation.stream_options and generation.stream_options.include_usage),
        input_tokens=sum(inputs),
        longest_input_tokens=max(inputs, default=0),
        output_tokens_max=generation.output_tokens_max() if generation else 0,
        answers=answers,
        is_revocable=bool(generation and generation.service_tier == REVOCABLE_TIER),
        cloud=wish,
    )


def _forget_names_of_pictures(messages: object) -> None:
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            places = [part, *part.values()] if isinstance(part, dict) else []
            for place in places:
                for field in PRIVATE_PART_FIELDS & place.keys() if isinstance(place, dict) else ():
                    del place[field]


def _answers(wire: Wire, inputs: int) -> int:
    """One request holds one slot, so it may not ask for more answers than an engine makes on the side."""
    if isinstance(wire, EmbeddingRequest):
        return 1
    best_of = wire.best_of if isinstance(wire, CompletionRequest) else None
    answers = inputs * max(wire.n or 1, best_of or 1)
    if answers > ANSWERS_MAX:
        raise InvalidRequest(f"The request asks for {answers} answers; one request may have {ANSWERS_MAX}.", param="n")
    return answers


def _missing(reason: str) -> str:
    """The field that msgspec misses, by its words."""
    before, _, field = reason.partition("missing required field `")
    return field.rstrip("`") if before else ""


def _reason(error: Exception) -> str:
    match error:
        case RecursionError():
            return "it is nested too deeply"
        case UnicodeDecodeError():
            return "it is not UTF-8"
        case _:
            return str(error)


def _inputs(content: str | list[str | int | list[int]]) -> list[int]:
    """One text, one list of ids, or several of either."""
    if isinstance(content, str) or all(isinstance(item, int) for item in content):
        return [_tokens(content)]
    return [_tokens(item) for item in content]


def _tokens(content: object) -> int:
    """About how many tokens there are in a text, a list of texts or ids, or the parts of a message."""
    if isinstance(content, str):
        return -(-len(content) // CHARACTERS_PER_TOKEN)
    if isinstance(content, dict):
        text = cast("dict[str, object]", content).get("text")
        return _tokens(text) if isinstance(text, str) else TOKENS_PER_PICTURE
    if isinstance(content, int):
        return 1
    return sum(map(_tokens, cast("Iterable[object]", content))) if isinstance(content, list) else 0
