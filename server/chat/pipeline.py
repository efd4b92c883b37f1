"""One request to one model.

    route ─► gate ─► engine ─► meter ─► the client's bytes
                                  └───► lease (counts, and the end)

Who owns what: the lease and the engine's connection belong to the request's exit stack (server/api/scope.py), not to
the generator that streams. A generator that is suspended in a `yield` when its client vanishes may not be finished
until it is collected; the stack is unwound at once, whatever happens.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
from msgspec import Struct

from quotas.ledger import Entry
from server.chat.assembly import Assembly
from server.chat.meter import Meter
from server.clock import Clock
from server.engines.pool import Pool, Route
from server.engines.protocol import Reply
from server.errors import EngineFailed, InvalidRequest, Unavailable, WirthforgeError
from server.messages import ModelRequest, Principal, Surface
from server.sharing.gate import Gate
from server.sharing.lease import Lease

# The estimate takes four characters for a token, and no tokenizer packs more than twelve on average: beyond this
# ratio a prompt cannot fit, and engines take long to find that out.
ESTIMATE_TO_CONTEXT_MAX = 3
STREAMED: frozenset[Surface] = frozenset({"chat.completions", "completions"})


class Answer(Struct, frozen=True):
    """What came of a request: a whole body, or a stream that the caller must drain.

    Attributes:
        engine: the name of the engine that answers.
        queue_ms: how long the request waited for its slot.
    """

    engine: str
    queue_ms: int
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None


class Pipeline:
    """The way of a request, with the parts it needs."""

    def __init__(self, *, pool: Pool, gate: Gate, clock: Clock) -> None:
        self._pool = pool
        self._gate = gate
        self._clock = clock

    async def answer(self, request: ModelRequest, principal: Principal, stack: AsyncExitStack) -> Answer:
        """Wait for a slot and let the engine answer.

        Args:
            stack: unwound when the request ends, however it ends; then the slot is free.

        Raises:
            WirthforgeError: any fault before the answer begins. Later ones end the stream (see `_forward`).
        """
        route = self._pool.route(request.model)
        _refuse_what_cannot_fit(request, route)
        lease = await self._gate.admit(self._entry(request, principal, route))
        # Unwound last, and without effect if the request has settled: whoever still holds the lease here was cancelled.
        stack.callback(lease.settle, "cancelled")
        try:
            reply = await _opened(request, route, lease)
            stack.callback(reply.close)
            lease.on_lost = reply.close
            if request.surface not in STREAMED:
                return Answer(route.engine.name, lease.queue_ms, body=await _whole(reply, lease))
            stream = _forward(reply, lease, Meter(shows_usage=request.wants_usage or not request.is_stream))
            if request.is_stream:
                return Answer(route.engine.name, lease.queue_ms, stream=stream)
            return Answer(route.engine.name, lease.queue_ms, body=await _assembled(stream))
        except WirthforgeError as error:
            lease.settle("failed")
            if lease.is_lost:
                raise _lost() from error
            raise

    def _entry(self, request: ModelRequest, principal: Principal, route: Route) -> Entry:
        return Entry(
            id=str(request.id),
            engine=route.engine.name,
            model=request.model,
            surface=request.surface,
            user=str(principal.id),
            key=str(principal.key_id or ""),
            input_tokens=request.input_tokens,
            started_at_ms=int(self._clock.now().timestamp() * 1000),
        )


def _refuse_what_cannot_fit(request: ModelRequest, route: Route) -> None:
    context = route.model.context_tokens
    if context is not None and request.longest_input_tokens > context * ESTIMATE_TO_CONTEXT_MAX:
        raise InvalidRequest(
            f"The prompt has about {request.longest_input_tokens} tokens; {request.model} takes {context}.",
            code="context_length_exceeded",
        )


def _for_engine(request: ModelRequest) -> dict[str, object]:
    """The body as the engine gets it: streamed (see assembly.py), and with usage, since accounting needs it."""
    if request.surface not in STREAMED:
        return {name: value for name, value in request.body.items() if name != "stream"}
    options = request.body.get("stream_options") or {}
    return request.body | {"stream": True, "stream_options": options | {"include_usage": True}}


async def _opened(request: ModelRequest, route: Route, lease: Lease) -> Reply:
    """The engine's answer, begun. A long prompt takes minutes until then, and the lease may be lost meanwhile."""
    task = asyncio.current_task()
    assert task is not None
    lease.on_lost = task.cancel
    try:
        return await route.engine.open(request.surface, _for_engine(request), str(request.id))
    except asyncio.CancelledError:
        if not lease.is_lost or task.uncancel():
            raise  # the client left
        raise _lost() from None


def _lost() -> Unavailable:
    return Unavailable("The server lost the slot of this answer while it was cut off from Redis.", code="lease_lost")


async def _assembled(stream: AsyncIterator[bytes]) -> bytes:
    """The answer in one piece."""
    assembly = Assembly()
    async for events in stream:
        assembly.add(events)
    return assembly.body()


async def _forward(reply: Reply, lease: Lease, meter: Meter) -> AsyncIterator[bytes]:
    """Bytes for the client. The lease settles when the engine is done, not when the client has taken everything.

    Raises:
        WirthforgeError: the stream broke; what was forwarded so far is whole events.
    """
    try:
        async for chunk in reply.chunks():
            events = meter.feed(chunk)
            lease.output_tokens = meter.output_tokens
            if meter.has_first_token:
                lease.see_first_token()
            if meter.is_complete:
                _complete(lease, meter)
            if events:
                yield events
            if meter.fault is not None:
                raise meter.fault
            if meter.is_complete:
                return  # whether the engine hangs up or not
        rest = meter.end()
        _complete(lease, meter)
        if rest:
            yield rest
    except WirthforgeError as error:
        lease.settle("failed")
        if lease.is_lost:
            raise _lost() from error
        raise


def _complete(lease: Lease, meter: Meter) -> None:
    if meter.input_tokens is not None:
        lease.input_tokens = meter.input_tokens
    lease.output_tokens = meter.output_tokens
    lease.settle("completed")


async def _whole(reply: Reply, lease: Lease) -> bytes:
    """An answer in one piece, checked to be a JSON object, with its usage counted."""
    body = await reply.read()
    try:
        message = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineFailed(f"Engine {lease.entry.engine} answered with something that is not JSON.") from error
    if not isinstance(message, dict) or message.get("error"):
        raise EngineFailed(f"Engine {lease.entry.engine} answered with something that is no answer.")
    meter = Meter(shows_usage=True)
    if isinstance(usage := message.get("usage"), dict):
        meter.see_usage(usage)
    _complete(lease, meter)
    return body
