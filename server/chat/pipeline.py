"""One request to one model.

    route ─► limits ─► gate ─► engine ─► meter ─► the client's bytes
                                            └───► lease (counts, and the end)

Who owns what: the lease and the engine's connection belong to the request's exit stack (server/api/scope.py), not to
the generator that streams. A generator that is suspended in a `yield` when its client vanishes may not be finished
until it is collected; the stack is unwound at once, whatever happens.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from functools import partial
from operator import itemgetter
from typing import Protocol

import structlog
from msgspec import Struct
from redis.exceptions import RedisError

from quotas.cost import Cost
from quotas.ledger import Entry
from quotas.policy import Limits
from server.accounts.access import Access
from server.accounts.quotas import Quotas
from server.chat import traces
from server.chat.assembly import answer_object, assembled
from server.chat.bounds import bounds_of
from server.chat.interruption import Interruptions
from server.chat.meter import Meter
from server.chat.salts import Salts
from server.chat.stream import (
    STREAMED,
    TAKEN,
    Opened,
    Stream,
    blame,
    code_of,
    fail,
    for_engine,
    heeding,
    put_back,
    taken,
)
from server.clock import Clock
from server.engines.continuation import Record
from server.engines.places import Load, Loader
from server.engines.pool import Pool, Route
from server.engines.promises import Promises
from server.engines.protocol import Resumes
from server.errors import EngineFailed, EngineTimeout, NotAllowed, Unavailable, WirthforgeError
from server.messages import ModelRequest, Principal
from server.sharing.gate import Gate
from server.sharing.lease import Asking, Lease, Tell
from server.sharing.refusals import budget_headers
from server.sharing.waiting import QuotasChanged
from server.tracing.names import ENGINE, FIRST_CHUNK_S
from server.tracing.spans import NOTHING, Span, current

# How often quotas may change while one request enters.
QUOTA_READS_MAX = 5
INPUT_TOKENS_MAX = 1 << 31
# What a millisecond of loading a model costs whoever caused it, in service units; about a prompt token's time.
COST_PER_LOAD_MS = 1
# Other engines that are asked when one fails before it answers.
RETRIES_MAX = 1

log = structlog.get_logger(__name__)

# Who is asking. Raises NotAuthenticated.
Identify = Callable[[], Awaitable[Principal]]


class Answer(Struct, frozen=True):
    """What came of a request: a whole body, or a stream that the caller must drain.

    Attributes:
        headers: who answers, how long the request waited, and what is left of the budget.
    """

    headers: Mapping[str, str]
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None


class Way(Protocol):
    """How a request to one model is answered: the pipeline, or what stands before it."""

    async def answer(
        self, request: ModelRequest, identify: Identify, stack: AsyncExitStack, tell: Tell | None = None
    ) -> Answer:
        """See `Pipeline.answer`."""
        ...


class Pipeline:
    """The way of a request, with the parts it needs."""

    def __init__(  # noqa: PLR0913 (the parts that it joins)
        self,
        *,
        pool: Pool,
        gate: Gate,
        quotas: Quotas,
        access: Access,
        residency: Loader,
        promises: Promises,
        salts: Salts,
        clock: Clock,
        cost: Callable[[str], Cost],
        saw: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._pool = pool
        self._gate = gate
        self._quotas = quotas
        self._clock = clock
        self._access = access
        self._salts = salts
        self._residency = residency
        self._interruptions = Interruptions(pool=pool, gate=gate, residency=residency, salts=salts, promises=promises)
        # Many may have waited for one load; it is charged once.
        self._charged_load: Load | None = None
        self._cost = cost
        # Told who asks which model; of a council its leader's request only, since who else sits follows the load.
        self._saw = saw

    async def answer(
        self, request: ModelRequest, identify: Identify, stack: AsyncExitStack, tell: Tell | None = None
    ) -> Answer:
        """Wait for a slot and let the engine answer.

        Args:
            identify: who is asking; called again where something has changed meanwhile.
            stack: unwound when the request ends, however it ends; then the slot is free.
            tell: told about every second where the request stands, while it waits.

        Raises:
            WirthforgeError: any fault before the answer begins. Later ones end the stream (see `_forward`).
        """
        stream = await self._begun(request, identify, stack, tell)
        route, lease = stream.route, stream.lease
        headers = {
            "x-wirthforge-engine": route.engine.name,
            "x-wirthforge-queue-ms": str(lease.queue_ms),
            **budget_headers(lease.limits, lease.admission.budget),
        }
        try:
            lease.on_taken = partial(self._interruptions.interrupt, stream, stack)
            if request.surface not in STREAMED:
                body = await _whole(stream)
                return Answer(headers, body=body)
            events = self._interruptions.forward(stream, stack)
            if request.is_stream:
                return Answer(headers, stream=events)
            body = await assembled(events)
            pauses = {"x-wirthforge-pauses": str(lease.pauses), "x-wirthforge-paused-ms": str(lease.paused_ms)}
            return Answer(headers | (pauses if lease.pauses else {}), body=body)
        except WirthforgeError as error:
            fail(lease)
            if lease.taken in TAKEN:
                raise taken(lease.taken) from error
            raise

    async def _begun(
        self, request: ModelRequest, identify: Identify, stack: AsyncExitStack, tell: Tell | None
    ) -> Stream:
        """An engine that has begun to answer. One that fails before that is left for another, once."""
        failed: set[str] = set()
        parent = current()
        flow = str((await self._allowed(request, identify)).id)
        if request.role in {"", "leader"}:
            self._saw(flow, request.model)
        # A calibration may change it while the request runs; this one began with it.
        cost = self._cost(request.model)
        while True:
            route = await self._route(request.model, failed)
            held: list[Lease] = []
            # Unwound last, and without effect if the request has settled: whoever still holds the lease then was
            # cancelled.
            stack.callback(self._interruptions.leave, held)
            attempt = await stack.enter_async_context(AsyncExitStack())
            # Before the gate, so that nobody holds a slot while a model is loaded.
            began_ms = self._clock.monotonic_ms()
            load = await attempt.enter_async_context(
                self._residency.use(route.engine.name, request.model, caused_by=flow)
            )
            if load is not None:
                parent.past("load", self._clock.monotonic_ms() - began_ms, {ENGINE: route.engine.name})
            with traces.waiting(parent, route.engine.name):
                lease = await self._admitted(request, identify, route, cost, tell)
            if load is not None and load.caused_by == flow and load is not self._charged_load:
                self._charged_load = load
                lease.load_cost = load.took_ms * COST_PER_LOAD_MS
            held.append(lease)
            record = self._interruptions.record(request, route.engine)
            breaker, span = None, NOTHING
            try:
                route = self._pool.renewed(route)
                breaker = attempt.enter_context(self._pool.using(route.engine))
                span = attempt.enter_context(traces.asking(parent, request, route))
                reply, chunks = await heeding(lease, self._opened(request, route, lease, attempt, record, span))
            except WirthforgeError as error:
                span.fail(code_of(error, lease))
                span.end()
                if breaker is not None:
                    blame(error, breaker, lease)
                failed.add(route.engine.name)
                if lease.taken is not None or not self._may_retry(error, request.model, failed):
                    fail(lease)
                    if lease.taken in TAKEN:
                        raise taken(lease.taken) from error
                    raise
                log.warning("engine failed before it answered, another is asked", engine=route.engine.name)
                await self._gate.withdraw(lease)
                # What the first engine was used for ends now.
                await attempt.aclose()
            else:
                meter = Meter(shows_usage=request.wants_usage or not request.is_stream)
                stream = Stream(request, route, lease, attempt, reply, chunks, breaker, record, meter)
                stream.trace = traces.EngineSpan(span, parent, route.model.id, meter)
                attempt.callback(stream.leave)
                lease.can_go_on = stream.can_go_on
                return stream

    async def _opened(
        self,
        request: ModelRequest,
        route: Route,
        lease: Lease,
        stack: AsyncExitStack,
        record: Record | None,
        span: Span,
    ) -> Opened:
        """The engine's answer, begun, which may take minutes.

        Some engines say that all is well before they have read the prompt: a stream has begun when it brings something.
        """
        salt = await self._salts.of(lease.entry.user, request.model)
        body = for_engine(request, lease)
        if record is not None and isinstance(route.engine, Resumes):
            body = route.engine.traced(body)
        with span.within():
            reply = await route.engine.open(request.surface, body, str(request.id), salt)
        stack.callback(reply.close)
        if request.surface not in STREAMED:
            return reply, None
        chunks = reply.chunks()
        first = await anext(chunks, b"")
        span.note(FIRST_CHUNK_S, span.age_s)
        return reply, put_back(first, chunks)

    async def _route(self, model: str, failed: Collection[str]) -> Route:
        """Of the engines that serve the model the one with the least expected wait."""
        routes = self._pool.routes_to(model, but=failed)
        if len(routes) == 1:
            return routes[0]
        try:
            waits = [await self._gate.expected_wait_ms(route.engine.name) for route in routes]
        except (RedisError, OSError):
            return routes[0]
        return min(zip(waits, routes, strict=True), key=itemgetter(0))[1]

    def _may_retry(self, error: WirthforgeError, model: str, failed: Collection[str]) -> bool:
        if not isinstance(error, (EngineFailed, EngineTimeout, Unavailable)) or len(failed) > RETRIES_MAX:
            return False
        try:
            return bool(self._pool.routes_to(model, but=failed))
        except WirthforgeError:
            return False

    async def _allowed(self, request: ModelRequest, identify: Identify) -> Principal:
        """Who is asking, if they may use the model."""
        principal = await identify()
        limits, _ = await self._quotas.of(principal)
        if not limits.allows(request.model):
            raise NotAllowed(f"You may not use the model {request.model}.", code="model_not_allowed", param="model")
        return principal

    async def _admitted(
        self, request: ModelRequest, identify: Identify, route: Route, cost: Cost, tell: Tell | None
    ) -> Lease:
        """A lease under the limits that are in force, which may change while the request enters."""
        for _ in range(QUOTA_READS_MAX):
            principal = await self._allowed(request, identify)
            limits, version = await self._quotas.of(principal)
            entry = self._entry(request, principal, route, limits, cost)
            asking = Asking(entry=entry, limits=limits, version=version, cost=cost, tell=tell)
            try:
                return await self._gate.admit(asking)
            except QuotasChanged:
                self._access.forget(version)
        raise Unavailable("The quotas are being changed. Try again.", code="quotas_changing", retry_after_s=1)

    def _entry(self, request: ModelRequest, principal: Principal, route: Route, limits: Limits, cost: Cost) -> Entry:
        bounds = bounds_of(request, route.model, limits)
        # The estimate may be far too high, the engine takes no more than its context.
        context = route.model.context_tokens or request.input_tokens
        input_tokens = min(request.input_tokens, context * request.answers, INPUT_TOKENS_MAX)
        return Entry(
            id=str(request.id),
            engine=route.engine.name,
            model=request.model,
            surface=request.surface,
            user=str(principal.id),
            key=str(principal.key_id or ""),
            input_tokens=input_tokens,
            started_at_ms=int(self._clock.now().timestamp() * 1000),
            prompt_cost=cost.of(input_tokens, 0),
            output_tokens_max=bounds.most,
            output_tokens_min=bounds.least,
            answers=request.answers,
            is_revocable=request.is_revocable,
            council=str(request.council_id or ""),
            role=request.role,
        )


async def _whole(stream: Stream) -> bytes:
    """An answer in one piece, with its usage counted."""
    lease = stream.lease
    try:
        body = await stream.reply.read()
        message = answer_object(body, lease.entry.engine)
    except WirthforgeError as error:
        stream.blame(error)
        raise
    stream.breaker.succeed()
    if isinstance(usage := message.get("usage"), dict):
        stream.meter.see_usage(usage)
    stream.complete()
    return body
