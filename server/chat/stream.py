"""An answer under way: what passes from the engine to the client, and the lease that it runs under."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from server.chat.bounds import is_bound
from server.chat.meter import Meter
from server.chat.traces import UNSEEN, EngineSpan
from server.engines.continuation import Record, Splice
from server.engines.health import Breaker
from server.engines.pool import Route
from server.engines.protocol import Reply, Resumes
from server.errors import EngineFailed, EngineTimeout, Unavailable, WirthforgeError
from server.messages import ModelRequest, Surface
from server.sharing.lease import Lease, Taken
from server.tracing.spans import NOTHING, Span

STREAMED: frozenset[Surface] = frozenset({"chat.completions", "completions"})
# An engine may count more prompt tokens than we estimate: a template, a tokenizer for another language. Not more than
# one a character, and so many for the template.
CHARACTERS_PER_TOKEN = 4
TEMPLATE_TOKENS_MAX = 4096
# Events that hold no token are counted until the engine reports; so much is forgiven.
OVERSHOOT_TOKENS_MAX = 8
# An answer with fewer tokens left is not worth an interruption; with one left it could not be asked for.
LEFT_TOKENS_MIN = 2
TAKEN: dict[Taken, tuple[str, str]] = {
    "lost": ("lease_lost", "The server lost the slot of this answer while it was cut off from Redis."),
    "revoked": ("revoked", "This request could be stopped, and somebody needed its slot. Try again later."),
}
INTERRUPTED: Collection[Taken | None] = frozenset({"paused", "moved"})

# An answer, and its stream if it is one.
Opened = tuple[Reply, AsyncIterator[bytes] | None]


@dataclass
class Stream:
    """One answer.

    Attributes:
        route: who gives it.
        attempt: unwound when this engine is done with it.
        breaker: told whether the engine is well.
        record: what it has said, where it could go on after an interruption.
        splice: from the first interruption on.
        failed: engines that failed in its midst.
        requeued, onward: while it waits for another slot, and where that will be.
        resumed_at: events with text before it went on.
        trace, wait: the spans of the engine's request, and of waiting for another slot.
    """

    request: ModelRequest
    route: Route
    lease: Lease
    attempt: AsyncExitStack
    reply: Reply
    chunks: AsyncIterator[bytes] | None
    breaker: Breaker
    record: Record | None
    meter: Meter
    splice: Splice | None = None
    failed: set[str] = field(default_factory=set)
    requeued: asyncio.Task[None] | None = None
    onward: Route | None = None
    resumed_at: int = 0
    trace: EngineSpan = UNSEEN
    wait: Span = NOTHING

    def can_go_on(self) -> bool:
        """Whether it could be cut now, and go on."""
        if self.record is None or not self.record.is_whole or self.meter.is_complete or not self.meter.has_first_token:
            return False
        return self.lease.admission.granted - self.meter.output_tokens >= LEFT_TOKENS_MIN

    def give_up(self) -> None:
        """End now, also where the client takes nothing and nobody reads the engine's stream."""
        self.reply.close()
        fail(self.lease)

    def blame(self, error: WirthforgeError) -> None:
        """Count a fault of the engine's own, unless we hung up."""
        blame(error, self.breaker, self.lease)
        self.trace.fail(code_of(error, self.lease))

    def leave(self) -> None:
        """The engine is left, wherever it is with the answer; after its end that changes nothing."""
        self.trace.end(self.lease.taken or "cancelled")

    async def events(self) -> AsyncIterator[bytes]:
        """Bytes for the client. The lease settles when the engine is done, not when the client has taken everything.

        Ends early where the lease was taken away for a while.

        Raises:
            WirthforgeError: the stream broke; what was forwarded so far is whole events.
        """
        lease, meter = self.lease, self.meter
        assert self.chunks is not None, "it is a stream"
        async for chunk in self.chunks:
            if self.requeued is not None:
                return
            events = self._passed(chunk)
            lease.output_tokens = meter.output_tokens
            if meter.events > self.resumed_at and not lease.has_token:
                lease.see_first_token()
                self.trace.see_first_token()
                self.reply.expect_tokens()
                self.breaker.succeed()
            if meter.is_complete:
                self.complete()
            if events:
                yield events
            if (fault := meter.fault or self._overrun()) is not None:
                raise fault
            if meter.is_complete:
                return  # whether the engine hangs up or not
        if self.requeued is not None:
            return
        rest = meter.end()
        self.complete()
        if rest:
            yield rest

    def _passed(self, chunk: bytes) -> bytes:
        """The events of a chunk as the client gets them."""
        if self.record is None:
            return self.meter.feed(chunk)
        if self.splice is None:
            events = self.meter.feed(chunk)
            self.record.keep(events)
            engine = self.route.engine
            return engine.untraced(events) if isinstance(engine, Resumes) else events
        raw, spliced = self.splice.feed(chunk)
        self.record.keep(raw)
        return self.meter.feed(spliced)

    def _overrun(self) -> EngineFailed | None:
        """What is wrong where an engine writes more than it was told to and may be charged; claims do not count."""
        lease, meter = self.lease, self.meter
        is_within = meter.events <= lease.admission.granted + OVERSHOOT_TOKENS_MAX
        if is_within or meter.is_complete or not is_bound(lease.limits):
            return None
        return EngineFailed(
            f"Engine {lease.entry.engine} went on beyond the length it was asked for.", code="engine_overran"
        )

    def complete(self) -> None:
        """Settle an answer that came to its end."""
        complete(self.lease, self.meter)
        self.trace.end("completed")


def complete(lease: Lease, meter: Meter) -> None:
    """Settle by what was metered."""
    if meter.input_tokens is not None:
        most = lease.entry.input_tokens * CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS_MAX
        lease.input_tokens = min(meter.input_tokens, most)
        lease.cached_tokens = min(meter.cached_tokens, lease.input_tokens)
    lease.output_tokens = meter.output_tokens
    lease.settle("completed")


def fail(lease: Lease) -> None:
    """Settle an answer that broke."""
    lease.settle("revoked" if lease.taken == "revoked" else "failed")


def blame(error: WirthforgeError, breaker: Breaker, lease: Lease) -> None:
    """Count a fault of the engine's own, unless we hung up."""
    if lease.taken is None and isinstance(error, (EngineFailed, EngineTimeout)):
        breaker.fail()


def code_of(error: WirthforgeError, lease: Lease) -> str:
    """Why an answer broke: that it was taken away is the reason for what its engine seems to have done."""
    return TAKEN[lease.taken][0] if lease.taken in TAKEN else error.code


def taken(reason: Taken) -> Unavailable:
    """What its client is told."""
    code, sentence = TAKEN[reason]
    return Unavailable(sentence, code=code, retry_after_s=1)


async def heeding(lease: Lease, begin: Coroutine[Any, Any, Opened]) -> Opened:
    """What `begin` gives, unless the lease is taken away meanwhile."""
    task = asyncio.current_task()
    assert task is not None
    lease.on_taken = task.cancel
    if lease.taken is not None:
        task.cancel()
    try:
        return await begin
    except asyncio.CancelledError:
        if lease.taken is None or task.uncancel():
            raise  # the client left
        raise taken(lease.taken) from None


def for_engine(request: ModelRequest, lease: Lease) -> dict[str, object]:
    """The body as the engine gets it: streamed (see assembly.py), with usage, and no longer than may be charged."""
    if request.surface not in STREAMED:
        return {name: value for name, value in request.body.items() if name != "stream"}
    options = request.body.get("stream_options") or {}
    body = request.body | {"stream": True, "stream_options": options | {"include_usage": True}}
    if is_bound(lease.limits):
        name = "max_completion_tokens" if request.body.get("max_completion_tokens") is not None else "max_tokens"
        body[name] = lease.admission.granted // request.answers
    return body


async def put_back(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A stream whose first chunk was read already."""
    yield first
    async for chunk in rest:
        yield chunk
