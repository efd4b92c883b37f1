"""One request to one model.

    route ─► limits ─► gate ─► engine ─► meter ─► the client's bytes
                                            └───► lease (counts, and the end)

Who owns what: the lease and the engine's connection belong to the request's exit stack (server/api/scope.py), not to
the generator that streams. A generator that is suspended in a `yield` when its client vanishes may not be finished
until it is collected; the stack is unwound at once, whatever happens.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack
from functools import partial
from operator import itemgetter
from typing import Any

import structlog
from msgspec import Struct
from redis.exceptions import RedisError

from quotas.cost import Cost
from quotas.ledger import Entry
from quotas.policy import Limits
from server.accounts.access import Access
from server.accounts.quotas import Quotas
from server.chat.assembly import answer_object, assembled
from server.chat.bounds import bounds_of, is_bound
from server.chat.meter import Meter
from server.chat.salts import Salts
from server.clock import Clock
from server.engines.health import Breaker
from server.engines.places import Load, Loader
from server.engines.pool import Pool, Route
from server.engines.protocol import Reply
from server.errors import EngineFailed, EngineTimeout, NotAllowed, Unavailable, WirthforgeError
from server.messages import ModelRequest, Principal, Surface
from server.sharing.gate import Gate, QuotasChanged
from server.sharing.lease import Asking, Lease, Taken, Tell
from server.sharing.refusals import budget_headers

STREAMED: frozenset[Surface] = frozenset({"chat.completions", "completions"})
# How often quotas may change while one request enters.
QUOTA_READS_MAX = 5
# An engine may count more prompt tokens than we estimate: a template, a tokenizer for another language. Not more than
# one a character, and so many for the template.
CHARACTERS_PER_TOKEN = 4
TEMPLATE_TOKENS_MAX = 4096
INPUT_TOKENS_MAX = 1 << 31
# Events that hold no token are counted until the engine reports; so much is forgiven.
OVERSHOOT_TOKENS_MAX = 8
# What a millisecond of loading a model costs whoever caused it, in service units; about a prompt token's time.
COST_PER_LOAD_MS = 1
# Other engines that are asked when one fails before it answers.
RETRIES_MAX = 1
TAKEN: dict[Taken, tuple[str, str]] = {
    "lost": ("lease_lost", "The server lost the slot of this answer while it was cut off from Redis."),
    "revoked": ("revoked", "This request could be stopped, and somebody needed its slot. Try again later."),
}

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
        salts: Salts,
        clock: Clock,
        cost: Callable[[str], Cost],
    ) -> None:
        self._pool = pool
        self._gate = gate
        self._quotas = quotas
        self._clock = clock
        self._access = access
        self._salts = salts
        self._residency = residency
        # Many may have waited for one load; it is charged once.
        self._charged_load: Load | None = None
        self._cost = cost

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
        begun = await self._begun(request, identify, stack, tell)
        route, lease, reply = begun.route, begun.lease, begun.reply
        headers = {
            "x-wirthforge-engine": route.engine.name,
            "x-wirthforge-queue-ms": str(lease.queue_ms),
            **budget_headers(lease.limits, lease.admission.budget),
        }
        try:
            lease.on_taken = partial(_give_up, reply, lease)
            if request.surface not in STREAMED:
                body = await _whole(begun)
                return Answer(headers, body=body)
            stream = _forward(begun, Meter(shows_usage=request.wants_usage or not request.is_stream))
            if request.is_stream:
                return Answer(headers, stream=stream)
            return Answer(headers, body=await assembled(stream))
        except WirthforgeError as error:
            _fail(lease)
            if lease.taken is not None:
                raise _taken(lease.taken) from error
            raise

    async def _begun(
        self, request: ModelRequest, identify: Identify, stack: AsyncExitStack, tell: Tell | None
    ) -> "_Begun":
        """An engine that has begun to answer. One that fails before that is left for another, once."""
        failed: set[str] = set()
        flow = str((await self._allowed(request, identify)).id)
        # A calibration may change it while the request runs; this one began with it.
        cost = self._cost(request.model)
        while True:
            route = await self._route(request.model, failed)
            attempt = await stack.enter_async_context(AsyncExitStack())
            # Before the gate, so that nobody holds a slot while a model is loaded.
            load = await attempt.enter_async_context(
                self._residency.use(route.engine.name, request.model, caused_by=flow)
            )
            lease = await self._admitted(request, identify, route, cost, tell)
            if load is not None and load.caused_by == flow and load is not self._charged_load:
                self._charged_load = load
                lease.load_cost = load.took_ms * COST_PER_LOAD_MS
            # Unwound last, and without effect if the request has settled: whoever still holds the lease here was
            # cancelled.
            attempt.callback(lease.settle, "cancelled")
            breaker = None
            try:
                route = self._pool.renewed(route)
                breaker = attempt.enter_context(self._pool.using(route.engine))
                reply, chunks = await _heeding(lease, self._opened(request, route, lease, attempt))
            except WirthforgeError as error:
                if breaker is not None:
                    _blame(error, breaker, lease)
                failed.add(route.engine.name)
                if lease.taken is not None or not self._may_retry(error, request.model, failed):
                    _fail(lease)
                    if lease.taken is not None:
                        raise _taken(lease.taken) from error
                    raise
                log.warning("engine failed before it answered, another is asked", engine=route.engine.name)
                await self._gate.withdraw(lease)
                # What the first engine was used for ends now.
                await attempt.aclose()
            else:
                return _Begun(route, lease, reply, chunks, breaker)

    async def _opened(self, request: ModelRequest, route: Route, lease: Lease, stack: AsyncExitStack) -> "_Opened":
        """The engine's answer, begun, which may take minutes.

        Some engines say that all is well before they have read the prompt: a stream has begun when it brings something.
        """
        salt = await self._salts.of(lease.entry.user, request.model)
        reply = await route.engine.open(request.surface, _for_engine(request, lease), str(request.id), salt)
        stack.callback(reply.close)
        if request.surface not in STREAMED:
            return reply, None
        chunks = reply.chunks()
        return reply, _put_back(await anext(chunks, b""), chunks)

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
        )


class _Begun(Struct, frozen=True):
    """An answer under way: who gives it, the lease that it runs under, and who is told whether the engine is well."""

    route: Route
    lease: Lease
    reply: Reply
    chunks: AsyncIterator[bytes] | None
    breaker: Breaker


# An answer, and its stream if it is one.
_Opened = tuple[Reply, AsyncIterator[bytes] | None]


async def _put_back(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


def _blame(error: WirthforgeError, breaker: Breaker, lease: Lease) -> None:
    """Count a fault of the engine's own, unless we hung up."""
    if lease.taken is None and isinstance(error, (EngineFailed, EngineTimeout)):
        breaker.fail()


def _for_engine(request: ModelRequest, lease: Lease) -> dict[str, object]:
    """The body as the engine gets it: streamed (see assembly.py), with usage, and no longer than may be charged."""
    if request.surface not in STREAMED:
        return {name: value for name, value in request.body.items() if name != "stream"}
    options = request.body.get("stream_options") or {}
    body = request.body | {"stream": True, "stream_options": options | {"include_usage": True}}
    if is_bound(lease.limits):
        name = "max_completion_tokens" if request.body.get("max_completion_tokens") is not None else "max_tokens"
        body[name] = lease.admission.granted // request.answers
    return body


async def _heeding(lease: Lease, begin: Coroutine[Any, Any, _Opened]) -> _Opened:
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
        raise _taken(lease.taken) from None


def _taken(reason: Taken) -> Unavailable:
    code, sentence = TAKEN[reason]
    return Unavailable(sentence, code=code, retry_after_s=1)


def _give_up(reply: Reply, lease: Lease) -> None:
    """End now, also where the client takes nothing and nobody reads the engine's stream."""
    reply.close()
    _fail(lease)


def _fail(lease: Lease) -> None:
    lease.settle("revoked" if lease.taken == "revoked" else "failed")


async def _forward(begun: _Begun, meter: Meter) -> AsyncIterator[bytes]:
    """Bytes for the client. The lease settles when the engine is done, not when the client has taken everything.

    Raises:
        WirthforgeError: the stream broke; what was forwarded so far is whole events.
    """
    lease = begun.lease
    try:
        assert begun.chunks is not None, "it is a stream"
        async for chunk in begun.chunks:
            events = meter.feed(chunk)
            lease.output_tokens = meter.output_tokens
            if meter.has_first_token and lease.first_token_ms < 0:
                lease.see_first_token()
                begun.reply.expect_tokens()
                begun.breaker.succeed()
            if meter.is_complete:
                _complete(lease, meter)
            if events:
                yield events
            if (fault := meter.fault or _overrun(lease, meter)) is not None:
                raise fault
            if meter.is_complete:
                return  # whether the engine hangs up or not
        rest = meter.end()
        _complete(lease, meter)
        if rest:
            yield rest
    except WirthforgeError as error:
        _blame(error, begun.breaker, lease)
        _fail(lease)
        if lease.taken is not None:
            raise _taken(lease.taken) from error
        raise


def _overrun(lease: Lease, meter: Meter) -> EngineFailed | None:
    """What is wrong where an engine writes more than it was told to, and than may be charged; claims do not count."""
    is_within = meter.events <= lease.admission.granted + OVERSHOOT_TOKENS_MAX
    if is_within or meter.is_complete or not is_bound(lease.limits):
        return None
    return EngineFailed(
        f"Engine {lease.entry.engine} went on beyond the length it was asked for.", code="engine_overran"
    )


def _complete(lease: Lease, meter: Meter) -> None:
    if meter.input_tokens is not None:
        most = lease.entry.input_tokens * CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS_MAX
        lease.input_tokens = min(meter.input_tokens, most)
        lease.cached_tokens = min(meter.cached_tokens, lease.input_tokens)
    lease.output_tokens = meter.output_tokens
    lease.settle("completed")


async def _whole(begun: _Begun) -> bytes:
    """An answer in one piece, with its usage counted."""
    lease = begun.lease
    try:
        body = await begun.reply.read()
        message = answer_object(body, lease.entry.engine)
    except WirthforgeError as error:
        _blame(error, begun.breaker, lease)
        raise
    begun.breaker.succeed()
    meter = Meter(shows_usage=True)
    if isinstance(usage := message.get("usage"), dict):
        meter.see_usage(usage)
    _complete(lease, meter)
    return body
