"""Interruptions: an answer gives up its slot in the middle and goes on later, or on another engine.

    paused   somebody light waits and has no slot (quotas/lua/shared/recall.lua); it goes on where it was
    moved    its engine takes no more requests, or has died; it goes on with another that serves the model

The slot is free at once: the ledger is told in a task of its own, since a client that takes nothing would hold up the
stream. The answer keeps its lease, which waits like any other request, at the head of its flow's queue; its client gets
comments meanwhile, which event streams skip. How an answer goes on: continuation.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

import structlog

from server.chat import traces
from server.chat.salts import Salts
from server.chat.stream import INTERRUPTED, TAKEN, Opened, Stream, fail, for_engine, heeding, put_back, taken
from server.engines.continuation import Record, Splice, is_continuable
from server.engines.places import Loader
from server.engines.pool import Pool, Route
from server.engines.promises import Promises
from server.engines.protocol import Engine, Resumes
from server.errors import EngineFailed, EngineTimeout, InvalidRequest, NotFound, WirthforgeError
from server.messages import ModelRequest, Written
from server.sharing.gate import Gate
from server.sharing.lease import Lease
from server.tracing.names import FIRST_CHUNK_S

# How often the client of a paused answer sees life.
TELL_MS = 1_000
PAUSED = b": paused another member is being served\n\n"
MOVED = b": paused moving to another engine\n\n"
# Engines that may fail in the midst of one answer before it fails.
FAILURES_MAX = 1
# The engine of a paused answer was removed; another took the request, but not its continuation.
GONE, REFUSED = "engine_gone", "engine_does_not_continue"
# An engine that does not stop when its client leaves is busy for so long at the most.
LINGER_MS_MAX = 600_000

log = structlog.get_logger(__name__)


class Interruptions:
    """What may happen to an answer while it grows."""

    def __init__(self, *, pool: Pool, gate: Gate, residency: Loader, salts: Salts, promises: Promises) -> None:
        self._pool = pool
        self._promises = promises
        self._gate = gate
        self._residency = residency
        self._salts = salts

    def record(self, request: ModelRequest, engine: Engine) -> Record | None:
        """Where the answer is kept while it grows, if it could go on after an interruption."""
        if not isinstance(engine, Resumes) or request.surface not in engine.continues:
            return None
        # One that writes on when it is left would be busy all the same.
        is_able = self._promises.continues(engine.name) and self._promises.stops(engine.name) != "no"
        return Record() if is_able and is_continuable(request) else None

    def leave(self, held: list[Lease]) -> None:
        """The client left. An engine that is known to go on all the same keeps the slot for as long as that takes."""
        for lease in held:
            if self._promises.stops(lease.entry.engine) == "no" and lease.has_token and lease.output_tokens:
                left = max(lease.admission.granted - lease.output_tokens, 0)
                token_ms = (lease.elapsed_ms - lease.first_token_ms - lease.paused_ms) / lease.output_tokens
                self._gate.linger(lease, min(int(left * token_ms), LINGER_MS_MAX))
            else:
                lease.settle("cancelled")

    def interrupt(self, stream: Stream, stack: AsyncExitStack) -> None:
        """The lease was taken away. Nothing here waits for the client, who may take nothing."""
        lease = stream.lease
        if lease.taken not in INTERRUPTED:
            stream.give_up()
            return
        route = stream.route if lease.taken == "paused" else self._elsewhere(stream)
        if route is None:
            lease.taken = None  # it goes on where it is
            return
        stream.reply.close()
        self._requeue(stream, route, stack)

    def _requeue(self, stream: Stream, route: Route, stack: AsyncExitStack) -> None:
        stream.onward = route
        stream.requeued = asyncio.create_task(self._gate.requeue(stream.lease, route.engine.name))
        # Its client may leave without having heard of it.
        stream.requeued.add_done_callback(lambda task: task.cancelled() or task.exception())
        stack.callback(stream.requeued.cancel)
        stream.wait = traces.waiting(stream.trace.parent, route.engine.name, stream.lease.pauses + 1)
        stack.callback(stream.wait.end)

    def _elsewhere(self, stream: Stream) -> Route | None:
        """Another engine that serves the model and can go on with the answer."""
        request = stream.request
        try:
            routes = self._pool.routes_to(request.model, but={*stream.failed, stream.route.engine.name})
        except WirthforgeError:
            return None
        return next((route for route in routes if self._is_well(route) and self.record(request, route.engine)), None)

    def _is_well(self, route: Route) -> bool:
        health = self._pool.health(route.engine.name)
        return health is not None and health.is_up and health.breaker == "closed"

    async def forward(self, stream: Stream, stack: AsyncExitStack) -> AsyncIterator[bytes]:
        """The answer, over all interruptions.

        Raises:
            WirthforgeError: it broke for good.
        """
        lease = stream.lease
        while True:
            try:
                if stream.requeued is not None:
                    async for comment in self._resumed(stream, stack):
                        yield comment
                async for events in stream.events():
                    yield events
                if stream.requeued is None:
                    return
            except WirthforgeError as error:
                if stream.requeued is not None:
                    continue  # its engine's stream was closed
                stream.blame(error)
                if not self._goes_on(stream, error, stack):
                    fail(lease)
                    if lease.taken in TAKEN:
                        raise taken(lease.taken) from error
                    raise

    def _goes_on(self, stream: Stream, error: WirthforgeError, stack: AsyncExitStack) -> bool:
        """Whether another engine takes over from one that failed in mid-answer, or left while this was paused."""
        is_gone = error.code == GONE and stream.lease.taken in {None, *INTERRUPTED}
        has_failed = isinstance(error, (EngineFailed, EngineTimeout)) and stream.lease.taken is None
        if not (is_gone or has_failed) or len(stream.failed) >= FAILURES_MAX:
            return False
        route = self._elsewhere(stream) if stream.can_go_on() else None
        if route is None:
            return False
        log.warning("engine failed in mid-answer, another goes on", engine=stream.route.engine.name, code=error.code)
        stream.failed.add(stream.route.engine.name)
        stream.lease.taken = "moved"
        self._requeue(stream, route, stack)
        return True

    async def _resumed(self, stream: Stream, stack: AsyncExitStack) -> AsyncIterator[bytes]:
        """Comments while the answer waits for a slot; then it goes on."""
        lease, waiting, onward = stream.lease, stream.requeued, stream.onward
        assert waiting is not None
        assert onward is not None
        comment = PAUSED if lease.taken == "paused" else MOVED
        yield comment
        await stream.attempt.aclose()
        while not (await asyncio.wait([waiting], timeout=TELL_MS / 1000))[0]:
            yield comment
        stream.requeued = None
        with stream.wait:
            waiting.result()
        before, stream.route = stream.route.engine, self._pool.renewed(onward)
        engine, attempt = stream.route.engine, await stack.enter_async_context(AsyncExitStack())
        stream.attempt = attempt
        await attempt.enter_async_context(
            self._residency.use(engine.name, stream.request.model, caused_by=lease.entry.user)
        )
        stream.breaker = attempt.enter_context(self._pool.using(engine))
        stream.reply, stream.chunks = await heeding(lease, self._reopened(stream, is_same=engine is before))
        lease.on_taken = partial(self.interrupt, stream, stack)
        yield f": resumed pauses={lease.pauses} paused_ms={lease.paused_ms}\n\n".encode()

    async def _reopened(self, stream: Stream, *, is_same: bool) -> Opened:
        engine, request, lease, record = stream.route.engine, stream.request, stream.lease, stream.record
        assert isinstance(engine, Resumes)
        assert record is not None
        written: Written = record.written(stream.meter.output_tokens)
        if not is_same:
            written = written.without_ids()
        salt = await self._salts.of(lease.entry.user, request.model)
        parent = stream.trace.parent
        span = traces.asking(parent, request, stream.route)
        stream.trace = traces.EngineSpan(span, parent, stream.route.model.id, stream.meter)
        stream.attempt.callback(stream.leave)
        try:
            with span.within():
                reply, read = await engine.resume(
                    request.surface, for_engine(request, lease), written, str(request.id), salt
                )
        except (InvalidRequest, NotFound) as error:
            # Not its client's fault: the first engine has taken the very request.
            raise EngineFailed(f"Engine {engine.name} does not go on with this answer.", code=REFUSED) from error
        stream.attempt.callback(reply.close)
        stream.meter.cut()
        stream.resumed_at = stream.meter.events
        stream.splice = Splice(record.envelope(), read)
        chunks = reply.chunks()
        first = await anext(chunks, b"")
        span.note(FIRST_CHUNK_S, span.age_s)
        return reply, put_back(first, chunks)
