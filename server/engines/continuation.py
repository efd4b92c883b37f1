"""Going on with an answer that was cut off in the middle, so that its client sees a pause and nothing else.

Theory. What an engine writes next depends on the tokens before it and on nothing else. So the prompt and the answer so
far, read again as one prompt, lead to the place where the answer was cut; and most of it is in the engine's cache. The
same tokens are needed for that: a text may be cut into tokens in several ways, and the way in which a model wrote it
need not be the one in which a tokenizer reads it. Where the engine tells ids they are kept, else the text serves.

What goes on is one stream to the client: one id, one role at the beginning, one usage at the end, that of an answer
which was never cut. `Record` keeps what passes, as bytes that are read only if it comes to it; `Splice` rewrites what
comes after the cut, so that it reads like what came before.

Not every answer can go on: one with tools or a grammar would have to take up the parser's state, several answers are
several states, log probabilities at the seam would be those of a prompt, and a thought that was shown apart cannot be
given back as what it was.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from server.errors import EngineFailed
from server.messages import ModelRequest, Piece, Written

# Longer answers are not paused: all that passes is kept until the answer ends.
RECORD_BYTES_MAX = 16 * 1024 * 1024
EVENT_END = b"\n\n"
# What an engine would have to take up in the middle, or what would count anew.
STATEFUL = frozenset(
    {
        *("tools", "functions", "response_format", "logprobs", "top_logprobs", "suffix", "best_of", "echo", "audio"),
        *("grammar", "json_schema", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "regex"),
        *("guided_grammar", "ebnf", "thinking_token_budget", "n_probs", "return_tokens", "return_token_ids"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty", "mirostat", "prompt_logprobs"),
        *("continue_final_message", "documents", "truncate_prompt_tokens", "prompt_embeds", "use_beam_search"),
    }
)
# As they are: whoever names them so asks for nothing.
HARMLESS: tuple[object, ...] = (None, False, 0, [], {}, {"type": "text"})
# How the prompt is made; what these are by default is not what they are when they are false.
PROMPTING = ("add_generation_prompt", "add_special_tokens")
# Quotes inside of a text are escaped, so these are found only where they are meant.
THOUGHT = re.compile(rb'"(?:reasoning_content|reasoning)"\s*:\s*"[^"]|"tool_calls"\s*:\s*\[\s*[^\]\s]')
FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')


def is_continuable(request: ModelRequest) -> bool:
    """Whether its answer could be cut and go on, by what it asks for."""
    body = request.body
    if request.surface == "embeddings" or request.answers != 1:
        return False
    if any(body.get(name) not in HARMLESS for name in STATEFUL & body.keys() if name != "repetition_penalty"):
        return False
    if body.get("repetition_penalty") not in {None, 1} or any(body.get(name) is not None for name in PROMPTING):
        return False
    if request.surface == "completions":
        return isinstance(body.get("prompt"), str)
    messages = body.get("messages")
    if not (isinstance(messages, list) and all(map(_is_plain, messages))):
        return False
    # The beginning of an answer that the client wrote: some engines go on with it, and some begin anew.
    return bool(messages) and messages[-1].get("role") != "assistant"


def _is_plain(message: object) -> bool:
    return isinstance(message, dict) and isinstance(message.get("content"), str) and not message.get("tool_calls")


class Record:
    """What an answer has said so far.

    Attributes:
        is_whole: whether that is all that would be needed to go on.
    """

    def __init__(self) -> None:
        self._events: list[bytes] = []
        self._bytes = 0
        self.is_whole = True

    def keep(self, events: bytes) -> None:
        """Whole events, as they came from the engine."""
        self._bytes += len(events)
        if self._bytes > RECORD_BYTES_MAX or THOUGHT.search(events) is not None:
            self.is_whole = False
            self._events.clear()
        if self.is_whole:
            self._events.append(events)
            # Its client knows that it is over; what could still come is usage.
            self.is_whole = FINISHED.search(events) is None

    def written(self, tokens: int) -> Written:
        """The answer so far, of so many tokens."""
        pieces = [piece for message in _messages(b"".join(self._events)) if (piece := _piece(message)) is not None]
        # Ids without their text yet: half a letter, or the beginning of what might be a stop string.
        while pieces and not pieces[-1].text:
            pieces.pop()
            tokens -= 1
        return Written(tuple(pieces), max(tokens, 0))

    def envelope(self) -> dict[str, Any]:
        """What is the same in each event of this stream: its id, its kind, its model."""
        first = next(_messages(b"".join(self._events[:4])), {})
        return {
            name: first[name] for name in ("id", "object", "created", "model", "system_fingerprint") if name in first
        }


class Splice:
    """Makes what came after the cut read like what came before it.

    Args:
        envelope: of the stream so far.
        written: tokens before the cut, which the engine counts as its prompt.
    """

    def __init__(self, envelope: dict[str, Any], written: int) -> None:
        self._envelope = envelope
        self._is_chat = envelope.get("object") != "text_completion"
        self._written = written
        self._rest = b""

    def feed(self, chunk: bytes) -> tuple[bytes, bytes]:
        """Bytes as they come; gives whole events as they came, and as the client and the meter get them.

        Raises:
            EngineFailed: one of them is no JSON object.
        """
        buffer = self._rest + (chunk.replace(b"\r", b"") if b"\r" in chunk else chunk)
        end = buffer.rfind(EVENT_END) + len(EVENT_END)
        if end < len(EVENT_END):
            self._rest = buffer
            return b"", b""
        events, self._rest = buffer[:end], buffer[end:]
        return events, b"".join(map(self._rewritten, events.split(EVENT_END)))

    def _rewritten(self, event: bytes) -> bytes:
        text = event.removeprefix(b"data:").strip()
        if not event.startswith(b"data:") or text == b"[DONE]":
            return event + EVENT_END if event.strip() else b""
        message = _object(text)
        if message is None:
            raise EngineFailed("The engine sent an event that is no JSON object.")
        if message.get("error"):
            return event + EVENT_END  # the meter says what is wrong
        choices = [self._choice(choice) for choice in message.get("choices") or [] if isinstance(choice, dict)]
        if isinstance(usage := message.get("usage"), dict):
            return self._event({"choices": [each for each in choices if each], "usage": self._usage(usage)})
        return self._event({"choices": [each for each in choices if each]}) if any(choices) else b""

    def _event(self, parts: dict[str, Any]) -> bytes:
        return b"data: " + msgspec.json.encode(self._envelope | parts) + EVENT_END

    def _choice(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        """None where it says nothing: a second opening, which only names the role."""
        text, reason = _said(choice), choice.get("finish_reason")
        if not text and reason is None:
            return None
        said = {"delta": {"content": text} if text else {}} if self._is_chat else {"text": text, "logprobs": None}
        return {"index": 0, **said, "finish_reason": reason}

    def _usage(self, usage: dict[str, Any]) -> dict[str, int]:
        read, wrote = usage.get("prompt_tokens"), usage.get("completion_tokens")
        prompt = max(read - self._written, 0) if isinstance(read, int) else 0
        answer = self._written + (wrote if isinstance(wrote, int) else 0)
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _messages(events: bytes) -> Iterator[dict[str, Any]]:
    for event in events.split(EVENT_END):
        if event.startswith(b"data:") and (message := _object(event.removeprefix(b"data:").strip())) is not None:
            yield message


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        message = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _said(choice: dict[str, Any]) -> str:
    delta = choice.get("delta")
    text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
    return text if isinstance(text, str) else ""


def _piece(message: dict[str, Any]) -> Piece | None:
    choices = message.get("choices")
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        return None
    text, ids = _said(choices[0]), _ids(choices[0])
    return Piece(text, ids) if text or ids else None


def _ids(choice: dict[str, Any]) -> tuple[int, ...]:
    """As vLLM tells them (`token_ids`), or llama-server (`logprobs`, with the bytes of each)."""
    if isinstance(ids := choice.get("token_ids"), list):
        return tuple(each for each in ids if isinstance(each, int))
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    tokens = [each for each in content if isinstance(each, dict)] if isinstance(content, list) else []
    said = b"".join(bytes(each.get("bytes") or ()) for each in tokens)
    text = _said(choice).encode()
    # A token that ends a letter, or a text that was held back, comes with the text of those before it.
    if not tokens or len(said) < len(text) or any(not isinstance(each.get("id"), int) for each in tokens):
        return ()
    return tuple(each["id"] for each in tokens)
