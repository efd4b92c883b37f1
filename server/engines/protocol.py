"""What an adapter must do: list an engine's models, and open one request on it.

Whatever the engine speaks, an adapter takes OpenAI's wire format and gives it back: a JSON object, or server-sent
events whose last is `[DONE]`. Faults are raised as the errors named here, with the engine's name and no text of the
prompt.
"""

from collections.abc import AsyncIterator
from typing import Any, Protocol, runtime_checkable

from server.messages import Pressure, ServedModel, Surface, Written


class Reply(Protocol):
    """An answer of an engine, under way."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of an event stream as they come.

        Raises:
            EngineFailed: the connection broke.
            EngineTimeout: the engine fell silent.
        """
        ...

    async def read(self) -> bytes:
        """The whole answer, if it is no stream. Raises like `chunks`."""
        ...

    def expect_tokens(self) -> None:
        """The first token is there: from now on silence is a fault sooner. Called once."""
        ...

    def close(self) -> None:
        """Hang up, which makes the engine stop. Does not wait; may be called twice."""
        ...


class Engine(Protocol):
    """A running inference server.

    Attributes:
        name: unique on this box, shown to users and in usage.
        kind: which sort of engine it is (kinds.py).
        slots: how many requests it takes at a time.
        kv_tokens: the pool that all running requests share, prompts and answers; 0 where it is not known, or each slot
            has its own.
        prefill_chunk_tokens: prompt tokens that it reads in one step; None where it does not say.
        books_whole_answers: whether it sets the memory of a whole answer aside at once.
    """

    name: str
    kind: str
    slots: int
    kv_tokens: int
    prefill_chunk_tokens: int | None
    books_whole_answers: bool

    @property
    def isolates_caches(self) -> bool | None:
        """Whether the salt keeps one person's cached prompts from another; None where nobody knows."""
        ...

    async def probe(self) -> tuple[ServedModel, ...]:
        """List the models, and learn what else the engine tells about itself (`slots`).

        Raises:
            EngineFailed: it cannot be reached or answers rubbish.
        """
        ...

    async def metrics(self) -> str | None:
        """Its page of Prometheus metrics, if it has one. Never raises for its faults."""
        ...

    async def pressure(self) -> Pressure | None:
        """How the engine feels, and its `kv_tokens`, if it tells; None if it does not. Never raises for its faults."""
        ...

    async def open(self, surface: Surface, body: dict[str, Any], request_id: str, salt: str) -> Reply:
        """Send a request; returns once the engine has begun to answer with success.

        Args:
            body: OpenAI's request object.
            request_id: goes along, so that the engine's log and ours can be read together.
            salt: the same for all requests of one person to one model, and nobody else's; keeps prompt caches apart.

        Raises:
            InvalidRequest: the engine refuses the request itself.
            NotFound: the engine does not have the surface or the model.
            Unavailable: the engine is full or loading.
            EngineFailed, EngineTimeout: anything else.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


@runtime_checkable
class Resumes(Protocol):
    """An engine that may be able to go on with an answer that was cut off (server/engines/continuation.py)."""

    @property
    def continues(self) -> frozenset[Surface]:
        """Surfaces on which it should be able to; whether it is, the conformance test finds out."""
        ...

    def traced(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body with which it also tells the ids of tokens, if it can."""
        ...

    def untraced(self, events: bytes) -> bytes:
        """Whole events without what `traced` asked for."""
        ...

    async def resume(
        self, surface: Surface, body: dict[str, Any], written: Written, request_id: str, salt: str
    ) -> tuple[Reply, int]:
        """Like `open`, for the rest of an answer; gives also how many tokens of its prompt are the answer so far.

        The reply is a stream of chats or completions, whichever this engine needs for it. Raises like `open`.
        """
        ...
