"""text-generation-inference's requests and answers, and what they are in OpenAI's words.

Fields, defaults and bounds from router/src/lib.rs and router/src/validation.rs of TGI 3.3.7
(github.com/huggingface/text-generation-inference at db931fc).

Engines behind OpenAI's surface do not tell all that TGI tells. A token's `id` is there if the engine gives it along
with logprobs (TGI, llama.cpp, and vLLM if told to), else 0; its `logprob` likewise, else null, which TGI's schema
allows. A token is what the engine sent as one event. Both are asked for only where the client wants `details`, since
they cost the engine something.

A council's tokens are pieces of its answer, without ids and logprobs. TGI's format has no place for what members say;
in a stream comments tell when one begins and ends, and the details hold what /v1 has in `wirthforge`.
"""

from collections.abc import Collection
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from server.errors import EngineFailed, InvalidRequest

# What a client gets that names no length. TGI's schema says so; its router takes all of the context.
NEW_TOKENS_DEFAULT = 1024
STOPS_MAX = 4
TOP_TOKENS_MAX = 5
# As much as an answer in one piece may have.
ANSWER_BYTES_MAX = 64 * 1024 * 1024
# Only TGI itself can do this: others have no such field on OpenAI's surface, or another one each.
TGI_ONLY = ("truncate", "watermark", "grammar", "adapter_id")

FinishReason = Literal["length", "eos_token", "stop_sequence"]
Above0 = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, lt=1)]


class Parameters(Struct, kw_only=True):
    """`parameters` of a request."""

    best_of: Annotated[int, Meta(ge=1)] | None = None
    temperature: Above0 | None = None
    repetition_penalty: Above0 | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    top_k: Annotated[int, Meta(ge=1)] | None = None
    top_p: Share | None = None
    typical_p: Share | None = None
    do_sample: bool | None = None
    max_new_tokens: Annotated[int, Meta(ge=1, le=1 << 31)] | None = None
    return_full_text: bool | None = None
    stop: Annotated[list[str], Meta(max_length=STOPS_MAX)] | None = None
    truncate: Annotated[int, Meta(ge=1)] | None = None
    watermark: bool | None = None
    details: bool | None = None
    decoder_input_details: bool | None = None
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | None = None
    top_n_tokens: Annotated[int, Meta(ge=0, le=TOP_TOKENS_MAX)] | None = None
    grammar: dict[str, Any] | None = None
    adapter_id: str | None = None

    @property
    def samples(self) -> bool:
        """Whether chance is wanted, as TGI decides it."""
        given = (self.temperature, self.top_k, self.top_p, self.typical_p)
        return bool(self.do_sample) or any(value is not None for value in given)


class GenerateRequest(Struct, kw_only=True):
    """The body of /generate, /generate_stream and, with `stream`, of /. Without `parameters` TGI samples."""

    inputs: Annotated[str, Meta(min_length=1)]
    parameters: Parameters | None = None
    stream: bool | None = None


def read_request(raw: bytes) -> GenerateRequest:
    """Check a request. Raises InvalidRequest."""
    try:
        request = msgspec.json.decode(raw, type=GenerateRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason, _, place = str(error).partition(" - at `$.")
        param = place.strip("`") or None
        raise InvalidRequest(f"{f'`{param}`: ' if param else ''}{reason}.", param=param) from None
    request.parameters = request.parameters or Parameters(do_sample=True)
    return request


def as_completion(
    request: GenerateRequest, *, model: str, kinds: Collection[str], context_tokens: int | None
) -> dict[str, Any]:
    """The request in OpenAI's words.

    Args:
        kinds: of the engines that may get it.

    Raises:
        InvalidRequest: the engine cannot do what is asked for.
    """
    asked = request.parameters or Parameters(do_sample=True)
    _refuse_impossible(asked, kinds)
    limit = asked.max_new_tokens or min(NEW_TOKENS_DEFAULT, context_tokens or NEW_TOKENS_DEFAULT)
    body: dict[str, Any] = {"model": model, "prompt": request.inputs, "stream": True, "max_tokens": limit}
    body["stream_options"] = {"include_usage": True}
    body["temperature"] = (1.0 if asked.temperature is None else asked.temperature) if asked.samples else 0.0
    same = ("top_p", "top_k", "typical_p", "frequency_penalty", "repetition_penalty", "seed", "stop", *TGI_ONLY)
    body |= {name: value for name in same if (value := getattr(asked, name)) is not None and value is not False}
    if asked.repetition_penalty is not None:
        body["repeat_penalty"] = asked.repetition_penalty  # llama.cpp's name; others do not read it
    if asked.details:
        body["logprobs"] = max(asked.top_n_tokens or 0, 1)
        if set(kinds) == {"vllm"}:
            body["return_token_ids"] = True
    return body


def for_council(request: GenerateRequest, *, model: str, is_stream: bool) -> dict[str, Any]:
    """The request in OpenAI's words, to a council.

    Raises:
        InvalidRequest: several answers with what is asked for cannot be made one.
    """
    asked = request.parameters or Parameters()
    for name in ("top_n_tokens", *TGI_ONLY):
        if getattr(asked, name):
            raise InvalidRequest(f"A council takes no `{name}`. Ask a model by its name.", param=name)
    body = as_completion(request, model=model, kinds=(), context_tokens=None)
    body.pop("logprobs", None)
    body["stream"] = is_stream
    if not is_stream:
        del body["stream_options"]
    return body


def _refuse_impossible(asked: Parameters, kinds: Collection[str]) -> None:
    if (asked.best_of or 1) > 1:
        raise InvalidRequest("`best_of` != 1 is not allowed for this endpoint.", param="best_of")
    if asked.decoder_input_details:
        raise InvalidRequest("`decoder_input_details` == true is not supported by this server.", param="details")
    for name in TGI_ONLY:
        if getattr(asked, name) and set(kinds) != {"tgi"}:
            raise InvalidRequest(f"`{name}` is not supported by the engine of this model.", param=name)


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Choice(Struct):
    text: str | None = None
    finish_reason: str | None = None
    # vLLM: the stop word.
    stop_reason: Any = None
    logprobs: dict[str, Any] | None = None
    token_ids: list[int] | None = None


class _Chunk(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    # A council's event, in OpenAI's extension of ours.
    wirthforge: dict[str, Any] | None = None


class Token(Struct):
    """A token, as TGI tells it."""

    id: int
    text: str
    logprob: float | None
    special: bool


class Telling:
    """One answer: OpenAI's events as TGI's, or as one object.

    Args:
        is_council: what stands in `wirthforge` is ours; else an engine wrote it, and nobody reads it.
    """

    def __init__(self, request: GenerateRequest, *, is_council: bool = False) -> None:
        self._is_council = is_council
        self._council: dict[str, Any] | None = None
        self._asked = request.parameters or Parameters()
        self._prompt = request.inputs if self._asked.return_full_text else ""
        self._texts: list[str] = []
        self._tokens: list[Token] = []
        self._top: list[list[Token]] = []
        self._bytes = 0
        self._index = 0
        # The token that came with the reason, which TGI tells with the whole text.
        self._held: tuple[Token, list[Token]] | None = None
        self._reason: FinishReason = "eos_token"
        self._usage = _Usage()

    def feed(self, events: bytes) -> bytes:
        """TGI's events for whole events of OpenAI's.

        Raises:
            EngineFailed: they are none, or do not end.
        """
        self._bytes += len(events)
        if self._bytes > ANSWER_BYTES_MAX:
            raise EngineFailed(f"The engine answered with more than {ANSWER_BYTES_MAX} bytes.")
        told: list[bytes] = []
        for event in events.split(b"\n\n"):
            text = event.removeprefix(b"data:").strip()
            if not event.startswith(b"data:") or text == b"[DONE]":
                continue
            try:
                chunk = msgspec.json.decode(text, type=_Chunk)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise EngineFailed("The engine sent an event that is no completion.") from error
            self._usage = chunk.usage or self._usage
            if self._is_council and chunk.wirthforge:
                told.append(self._hear(chunk.wirthforge["council"]))
            told += [self._see(choice) for choice in chunk.choices]
        return b"".join(told)

    def _hear(self, event: dict[str, Any]) -> bytes:
        """What a council's event adds to a stream: a comment, so that who waits for the answer sees life."""
        match event:
            case {"type": "member", "label": str() as label, "role": str() as role, "state": str() as state}:
                return f": council {label} {role} {state}\n\n".encode()
            case {"type": "content", "is_restart": True}:
                self._texts, self._tokens, self._top = [], [], []  # what was said before counts no more
            case {"type": "summary"}:
                self._council = event
            case _:
                pass
        return b""

    def _see(self, choice: _Choice) -> bytes:
        told = b""
        if choice.text:
            self._texts.append(choice.text)
            self._index += 1
            token = _token(choice, choice.text)
            if not self._asked.top_n_tokens:
                token = (token[0], [])  # engines tell one at the least
            if self._asked.details:
                self._tokens.append(token[0])
                self._top.append(token[1])
            if choice.finish_reason:
                self._held = token
            else:
                told = _event(self._index, *token)
        if choice.finish_reason:
            self._reason = self._why(choice)
        return told

    def _why(self, choice: _Choice) -> FinishReason:
        """OpenAI's "stop" is both: TGI's clients are told a stop word where the engine names it or leaves it in."""
        if choice.finish_reason == "length":
            return "length"
        stops = tuple(self._asked.stop or ())
        is_word = isinstance(choice.stop_reason, str) or (stops and "".join(self._texts).endswith(stops))
        return "stop_sequence" if is_word else "eos_token"

    @property
    def counts(self) -> tuple[int, int]:
        """Tokens of the prompt and of the answer, by the engine's count."""
        return self._usage.prompt_tokens, self._usage.completion_tokens or self._index

    def end(self) -> bytes:
        """TGI's last event. Where no token came with the reason, it is that which ends a text, and has none."""
        if self._held is None:
            self._index += 1
        token, top = self._held or (Token(0, "", None, True), [])  # noqa: FBT003 (a row of a table)
        details = None
        if self._asked.details:
            details = self._details() | {"input_length": self.counts[0]}
        return _event(self._index, token, top, generated_text=self._prompt + "".join(self._texts), details=details)

    def whole(self) -> dict[str, Any]:
        """TGI's answer in one piece."""
        answer: dict[str, Any] = {"generated_text": self._prompt + "".join(self._texts)}
        if self._asked.details:
            answer["details"] = self._details() | {"prefill": [], "tokens": self._tokens}
            if self._asked.top_n_tokens:
                answer["details"]["top_tokens"] = self._top
        return answer

    def _details(self) -> dict[str, Any]:
        told = {"finish_reason": self._reason, "generated_tokens": self.counts[1], "seed": self._asked.seed}
        return told if self._council is None else told | {"wirthforge": {"council": self._council}}


def _event(
    index: int, token: Token, top: list[Token], *, generated_text: str | None = None, details: object = None
) -> bytes:
    told: dict[str, Any] = {"index": index, "token": token}
    if top:
        told["top_tokens"] = top
    return b"data: " + msgspec.json.encode(told | {"generated_text": generated_text, "details": details}) + b"\n\n"


def _token(choice: _Choice, text: str) -> tuple[Token, list[Token]]:
    """What the engine tells of a token, in either of the forms that there are, and of those that it did not take."""
    told = choice.logprobs or {}
    ids = choice.token_ids or []
    match told:
        case {"content": [{"logprob": int() | float() as logprob, **rest}]}:  # llama.cpp, as in conversations
            others = [_other(other) for other in _objects(rest.get("top_logprobs"))]
            return Token(_id(rest.get("id")), text, logprob, special=False), others
        case {"token_logprobs": [int() | float() as logprob]}:  # OpenAI's form for completions
            tops = told.get("top_logprobs")
            first = tops[0] if isinstance(tops, list) and tops and isinstance(tops[0], dict) else {}
            others = [_other({"token": name, "logprob": value}) for name, value in first.items()]
            return Token(_id(ids[0] if len(ids) == 1 else 0), text, logprob, special=False), others
        case _:
            return Token(_id(ids[0] if len(ids) == 1 else 0), text, None, special=False), []


def _other(told: dict[str, Any]) -> Token:
    logprob = told.get("logprob")
    is_number = isinstance(logprob, int | float)
    return Token(_id(told.get("id")), str(told.get("token", "")), logprob if is_number else None, special=False)


def _objects(items: object) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _id(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
