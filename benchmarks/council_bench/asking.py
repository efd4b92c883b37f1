"""One request to a running server, streamed, and when what of it came.

Times are taken here, at the client. A member's rate is its completion tokens but the first by the time from its first
piece of text to its last; a model alone is measured the same way. Where that is too short, or the answer came in a few
pieces at once, there is no rate.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from server.council.events import (
    OVER,
    Allocated,
    Content,
    Event,
    Joined,
    Member,
    Role,
    State,
    Summary,
    Text,
    Usage,
    Verdict,
)
from server.errors import InvalidRequest, NotFound, StartError

# Of an answer that has a rate; and how many tokens a piece of it may hold on average.
RATE_TOKENS_MIN = 8
RATE_MS_MIN = 20
PIECE_TOKENS_MAX = 3
SILENCE_S_MAX = 300
CONNECT_S_MAX = 10
LINE_BYTES_MAX = 16 * 1024 * 1024
# Statuses that every further request would get, too.
HOPELESS = frozenset({400, 401, 403, 404, 413, 429})


class Part(Struct, frozen=True, kw_only=True):
    """What one member did.

    Attributes:
        tokens_per_s: None where it said too little to tell.
    """

    label: str
    model: str
    role: Role
    state: State
    reason: str | None
    text: str
    tokens: int | None
    tokens_per_s: float | None


class Council(Struct, frozen=True, kw_only=True):
    """What the server told about a council; `leader` is the model that it let begin."""

    leader: str
    wanted: int
    size: int
    reason: str
    binding: str
    strategy: str
    method: str
    agreement: float
    opinions: int
    parts: tuple[Part, ...]


class Heard(Struct, frozen=True, kw_only=True):
    """One answer.

    Attributes:
        first_ms: until anything of a text came; `answer_ms` until something of the answer came that stayed.
        tokens_per_s: of a model alone; None where it said too little to tell.
        error: a sentence, where there is no whole answer.
        council: None for a model alone, and where the council failed.
    """

    text: str = ""
    first_ms: float | None = None
    answer_ms: float | None = None
    total_ms: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens_per_s: float | None = None
    error: str | None = None
    council: Council | None = None


class _Delta(Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(Struct, frozen=True):
    delta: _Delta = _Delta()


class _Extension(Struct, frozen=True):
    council: Event | None = None


class _Fault(Struct, frozen=True):
    message: str = "no reason"


class _Chunk(Struct, frozen=True):
    choices: tuple[_Choice, ...] = ()
    usage: Usage | None = None
    wirthforge: _Extension | None = None
    error: _Fault | None = None


class _About(Struct, frozen=True):
    council: bool = False


class _Model(Struct, frozen=True):
    id: str
    wirthforge: _About = _About()


class _Models(Struct, frozen=True):
    data: tuple[_Model, ...]


class _Pace:
    """When the pieces of one text came."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._first_ms = self._last_ms = 0.0

    def hear(self, text: str, at_ms: float) -> None:
        """A piece of it came."""
        if not self.texts:
            self._first_ms = at_ms
        self.texts.append(text)
        self._last_ms = at_ms

    def tokens_per_s(self, tokens: int | None) -> float | None:
        """How fast it came, if it is long enough."""
        took_ms = self._last_ms - self._first_ms
        if tokens is None or tokens < RATE_TOKENS_MIN or took_ms < RATE_MS_MIN:
            return None
        if tokens > PIECE_TOKENS_MAX * len(self.texts):
            return None
        return (tokens - 1) * 1000 / took_ms


class Listener:
    """Reads the chunks of one stream."""

    def __init__(self, began_ms: float) -> None:
        self._began_ms = began_ms
        self._heard = Heard()
        self._answer = _Pace()
        self._thoughts = _Pace()
        self._paces: dict[tuple[str, Role], _Pace] = {}
        self._members: dict[tuple[str, Role], Member] = {}
        self._allocated: Allocated | None = None
        self._verdict: Verdict | None = None

    def hear(self, chunk: _Chunk, at_ms: float) -> None:
        """The next chunk, which came at this time."""
        if chunk.error is not None:
            self._heard = replace(self._heard, error=chunk.error.message)
        if chunk.usage is not None:
            usage = chunk.usage
            self._heard = replace(
                self._heard, prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens
            )
        if chunk.wirthforge is not None and chunk.wirthforge.council is not None:
            self._event(chunk.wirthforge.council, at_ms)
        for choice in chunk.choices[:1]:
            self._delta(choice.delta, at_ms)

    def end(self, at_ms: float) -> Heard:
        """The whole of it."""
        heard = self._heard
        text = "".join(self._answer.texts)
        error = heard.error
        if error is None and not text.strip():
            error = "The answer is empty."
        alone = self._answer if text else self._thoughts
        return replace(
            heard,
            text=text,
            total_ms=at_ms - self._began_ms,
            tokens_per_s=None if self._allocated else alone.tokens_per_s(heard.completion_tokens),
            error=error,
            council=self._council(),
        )

    def _event(self, event: Event, at_ms: float) -> None:
        match event:
            case Allocated():
                self._allocated = event
            case Text():
                self._paces.setdefault((event.label, event.role), _Pace()).hear(event.text, at_ms)
                self._first(at_ms)
            case Member():
                self._members[event.label, event.role] = event
            case Verdict():
                self._verdict = event
            case Content(is_restart=True):
                self._answer = _Pace()
                self._heard = replace(self._heard, answer_ms=None)
            case Content() | Joined() | Summary():
                pass

    def _delta(self, delta: _Delta, at_ms: float) -> None:
        if delta.reasoning_content:
            self._thoughts.hear(delta.reasoning_content, at_ms)
            self._first(at_ms)
        if delta.content:
            self._answer.hear(delta.content, at_ms)
            self._first(at_ms)
            if self._heard.answer_ms is None:
                self._heard = replace(self._heard, answer_ms=at_ms - self._began_ms)

    def _first(self, at_ms: float) -> None:
        if self._heard.first_ms is None:
            self._heard = replace(self._heard, first_ms=at_ms - self._began_ms)

    def _council(self) -> Council | None:
        told, verdict = self._allocated, self._verdict
        if told is None or verdict is None:
            return None
        return Council(
            leader=next((seat.model for seat in told.members if seat.is_leader), ""),
            wanted=told.wanted,
            size=told.size,
            reason=told.reason,
            binding=told.binding,
            strategy=told.strategy,
            method=verdict.method,
            agreement=verdict.agreement,
            opinions=len(verdict.opinions),
            parts=tuple(self._part(member) for member in self._members.values() if member.state in OVER),
        )

    def _part(self, member: Member) -> Part:
        pace = self._paces.get((member.label, member.role)) or _Pace()
        tokens = None if member.usage is None else member.usage.completion_tokens
        return Part(
            label=member.label,
            model=member.model,
            role=member.role,
            state=member.state,
            reason=member.reason,
            text="".join(pace.texts),
            tokens=tokens,
            tokens_per_s=pace.tokens_per_s(tokens) if member.state == "done" else None,
        )


class Server:
    """A running server, asked as any OpenAI client would.

    Args:
        url: without `/v1`.
        now_ms: milliseconds from any beginning, with as many digits as there are.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str, now_ms: Callable[[], float]) -> None:
        self._session = session
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {key}"}
        self._now_ms = now_ms
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S_MAX, sock_read=SILENCE_S_MAX)

    async def models(self) -> list[str]:
        """All that may be asked, without councils.

        Raises:
            StartError: there is no such server. NotFound, InvalidRequest: it refuses.
        """
        try:
            async with self._session.get(
                f"{self._url}/v1/models", headers=self._headers, timeout=self._timeout
            ) as response:
                body = await response.read()
                if response.status != 200:  # noqa: PLR2004
                    raise _refusal(response.status, body)
                listed = msgspec.json.decode(body, type=_Models)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise StartError(f"No server answers at {self._url}: {str(error) or type(error).__name__}") from None
        except msgspec.MsgspecError:
            raise StartError(f"What answers at {self._url} is no server of this kind.") from None
        return [each.id for each in listed.data if not each.wirthforge.council]

    async def ask(self, question: str, tokens_max: int, way: Mapping[str, Any]) -> Heard:
        """Ask, and read to the end. A fault is told in the answer.

        Raises:
            InvalidRequest, NotFound: the server refuses what it would refuse again and again.
        """
        body = {
            "messages": [{"role": "user", "content": question}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": tokens_max,
            **way,
        }
        began_ms = self._now_ms()
        listener = Listener(began_ms)
        try:
            async with self._session.post(
                f"{self._url}/v1/chat/completions", json=body, headers=self._headers, timeout=self._timeout
            ) as response:
                if response.status != 200:  # noqa: PLR2004
                    fault = _refusal(response.status, await response.read())
                    if response.status in HOPELESS:
                        raise fault
                    return Heard(error=fault.message, total_ms=self._now_ms() - began_ms)
                async for chunk in _chunks(response):
                    listener.hear(chunk, self._now_ms())
        except (aiohttp.ClientError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            return replace(
                listener.end(self._now_ms()), error=f"The answer broke off: {str(error) or type(error).__name__}"
            )
        return listener.end(self._now_ms())


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[_Chunk]:
    """The events of a stream, but comments and the end's mark."""
    buffered = b""
    async for piece in response.content.iter_any():
        buffered += piece
        *lines, buffered = buffered.split(b"\n")
        if len(buffered) > LINE_BYTES_MAX:
            raise ValueError("a line of the stream is too long")
        for line in lines:
            data = line.strip().removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if data and data != b"[DONE]":
                yield msgspec.json.decode(data, type=_Chunk)


def _refusal(status: int, body: bytes) -> InvalidRequest | NotFound:
    """The server's own sentence."""
    try:
        message = (msgspec.json.decode(body, type=_Chunk).error or _Fault()).message
    except msgspec.MsgspecError:
        message = f"status {status}"
    kind = NotFound if status == 404 else InvalidRequest  # noqa: PLR2004
    return kind(f"The server refuses: {message}")
