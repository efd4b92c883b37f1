"""The pool: which engines there are, how they are, and which of them serve a model.

Engines come and go while the server runs. One that is removed takes no new requests, and its connections are closed
when its last request has ended.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import structlog
from msgspec import Struct

from server.clock import Clock
from server.engines.health import Breaker
from server.engines.protocol import Engine
from server.errors import EngineFailed, EngineTimeout, NotFound, Unavailable, WirthforgeError
from server.messages import Pressure, ServedModel
from server.telemetry import ENGINE_UP

PROBE_EVERY_MS = 10_000
# An engine that is away is looked at more often: people wait for it.
PROBE_AWAY_EVERY_MS = 1_000
PRESSURE_EVERY_MS = 5_000
# Somebody has to add one first.
RETRY_WITHOUT_ENGINES_S = 30

log = structlog.get_logger(__name__)

OnProbed = Callable[[Engine], None]
OnPressure = Callable[[str, Pressure], None]
OnGone = Callable[[str], None]


class Route(Struct, frozen=True):
    """An engine that serves the model, and the model as it lists it."""

    engine: Engine
    model: ServedModel


class Health(Struct, frozen=True, kw_only=True):
    """How an engine is, as this replica sees it."""

    is_up: bool
    is_draining: bool
    breaker: str
    in_use: int
    models: tuple[ServedModel, ...]
    reason: str | None


class _Member:
    """An engine in the pool, and what is known of it."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.engine = engine
        self.breaker = Breaker(clock)
        self.models: tuple[ServedModel, ...] | None = None
        # None: it was not looked at yet.
        self.is_up: bool | None = None
        self.is_draining = False
        self.reason: str | None = None
        self.in_use = 0
        self.watches: list[asyncio.Task[None]] = []


class Pool:
    """All engines of the box.

    Args:
        on_probed: told of an engine whenever it was probed, so that the gate knows its window.
        on_pressure: told what an engine that is up says of itself, by its name.
        on_gone: told of one that has left.
        on_drain: told of one that takes no new requests.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        clock: Clock,
        on_probed: OnProbed,
        on_pressure: OnPressure,
        on_gone: OnGone = lambda _: None,
        on_drain: OnGone = lambda _: None,
    ) -> None:
        self._clock = clock
        self._on_probed = on_probed
        self._on_pressure = on_pressure
        self._on_gone = on_gone
        self._on_drain = on_drain
        self._members = {engine.name: _Member(engine, clock) for engine in engines}
        self._retired: list[_Member] = []
        self._is_running = False

    @property
    def is_ready(self) -> bool:
        """Whether any engine answers."""
        return any(member.is_up for member in self._members.values())

    @property
    def names(self) -> list[str]:
        """Of all engines, in the order in which they came."""
        return list(self._members)

    def health(self, name: str) -> Health | None:
        """How an engine is; None if there is none of this name."""
        member = self._members.get(name)
        if member is None:
            return None
        return Health(
            is_up=bool(member.is_up),
            is_draining=member.is_draining,
            breaker=member.breaker.state,
            in_use=member.in_use,
            models=member.models or (),
            reason=member.reason,
        )

    def engine(self, name: str) -> Engine | None:
        """The adapter of this name."""
        member = self._members.get(name)
        return None if member is None else member.engine

    def routes(self) -> list[Route]:
        """Every model once, from the first engine that serves it; those of engines that are up come first."""
        found: dict[str, Route] = {}
        for member in self._by_health():
            for model in member.models or ():
                found.setdefault(model.id, Route(member.engine, model))
        return list(found.values())

    def routes_to(self, model: str, *, but: Collection[str] = ()) -> list[Route]:
        """The engines that can be asked for `model` now, without those named in `but`.

        Where none is well, those that are not, so that one is tried and the fault is told.

        Raises:
            NotFound: no engine serves it.
            Unavailable: it takes no more requests; or none has answered yet, so nobody knows; or there is none at all.
        """
        serving = [
            (member, served)
            for member in self._by_health()
            for served in member.models or ()
            if served.id == model and member.engine.name not in but
        ]
        open_ones = [(member, served) for member, served in serving if not member.is_draining]
        well = [(member, served) for member, served in open_ones if member.is_up and member.breaker.lets_pass]
        if open_ones:
            if not well and (resting := [member.breaker.rest_ms for member, _ in open_ones if member.is_up]):
                raise Unavailable(
                    "The engine of this model has failed several times. It is tried again in a few seconds.",
                    code="engine_resting",
                    retry_after_s=max(-(-min(resting) // 1000), 1),
                )
            return [Route(member.engine, served) for member, served in well or open_ones]
        if serving:
            raise Unavailable(
                "The engine of this model is being emptied for maintenance.", code="engine_draining", retry_after_s=60
            )
        if not self._members:
            raise Unavailable(
                "This server has no engine. An admin adds one on the page Engines, or in the setting engines.",
                code="no_engine",
                retry_after_s=RETRY_WITHOUT_ENGINES_S,
            )
        if any(member.models is None for member in self._members.values()):
            raise Unavailable(
                "No engine that answers has this model, and not all have answered yet. Try again in a few seconds.",
                code="no_engine",
                retry_after_s=3,
            )
        raise NotFound(f"There is no model {model[:100]!r}. GET /v1/models lists them.", code="model_not_found")

    def _by_health(self) -> list[_Member]:
        return sorted(self._members.values(), key=lambda member: (not member.is_up, not member.breaker.lets_pass))

    def renewed(self, route: Route) -> Route:
        """The same route after a wait, in which its engine may have been changed.

        Raises:
            Unavailable: it is gone.
        """
        member = self._members.get(route.engine.name)
        if member is None:
            raise Unavailable("The engine of this request was removed. Try again.", code="engine_gone", retry_after_s=1)
        return Route(member.engine, route.model)

    @contextmanager
    def using(self, engine: Engine) -> Iterator[Breaker]:
        """While a request is on this engine; gives its breaker, to be told what came of it."""
        member = next(each for each in (*self._members.values(), *self._retired) if each.engine is engine)
        member.in_use += 1
        is_trial = member.breaker.try_one()
        try:
            yield member.breaker
        finally:
            member.in_use -= 1
            if is_trial:
                member.breaker.release()

    async def change(self, engine: Engine, *, is_draining: bool = False) -> None:
        """Take in an engine, or put it in the place of the one of the same name."""
        member = _Member(engine, self._clock)
        member.is_draining = is_draining
        # The one before serves until it is known how this one is.
        known = self._members.setdefault(engine.name, member)
        await self._probe(member)
        if known is not member:
            self._members[engine.name] = member
            self._tell(member)
            await self._retire(known)
        if self._is_running and self._members.get(engine.name) is member and not member.watches:
            self._start(member)

    def drain(self, name: str, *, is_draining: bool) -> None:
        """Let an engine take no new requests, or take them again."""
        if (member := self._members.get(name)) is not None:
            member.is_draining = is_draining
            if is_draining:
                self._on_drain(name)

    async def remove(self, name: str) -> None:
        """Let an engine go; what runs on it ends."""
        if (member := self._members.pop(name, None)) is not None:
            await self._retire(member)
            self._on_gone(name)
            ENGINE_UP.remove(name)

    async def _retire(self, member: _Member) -> None:
        self._retired.append(member)
        for watch in member.watches:
            watch.cancel()
        await asyncio.gather(*member.watches, return_exceptions=True)

    async def probe_all(self) -> None:
        """Look at every engine once."""
        await asyncio.gather(*(self._probe(member) for member in self._members.values()))

    async def probe(self, name: str) -> None:
        """Look at one engine now, if it is there."""
        if (member := self._members.get(name)) is not None:
            await self._probe(member)

    async def run(self) -> None:
        """Look at the engines until cancelled, each in its own time."""
        self._is_running = True
        for member in self._members.values():
            self._start(member)
        try:
            while True:
                await self._clock.sleep_ms(PROBE_AWAY_EVERY_MS)
                await self._close_retired()
                # A watch ends only when it is cancelled.
                for watch in (watch for member in self._members.values() for watch in member.watches if watch.done()):
                    watch.result()
        finally:
            self._is_running = False
            watches = [watch for member in self._members.values() for watch in member.watches]
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)

    async def _close_retired(self) -> None:
        idle = [member for member in self._retired if not member.in_use]
        self._retired = [member for member in self._retired if member.in_use]
        for member in idle:
            await member.engine.close()

    def _start(self, member: _Member) -> None:
        name = member.engine.name
        member.watches = [
            asyncio.create_task(self._watch(member), name=f"watch {name}"),
            asyncio.create_task(self._feel(member), name=f"feel {name}"),
        ]

    async def _watch(self, member: _Member) -> None:
        while True:
            await self._clock.sleep_ms(PROBE_EVERY_MS if member.is_up else PROBE_AWAY_EVERY_MS)
            await self._probe(member)

    async def _feel(self, member: _Member) -> None:
        while True:
            if member.is_up:
                try:
                    pressure = await member.engine.pressure()
                except Exception:  # a plugin may do anything
                    log.exception("engine cannot be felt", engine=member.engine.name)
                else:
                    if pressure is not None:
                        self._on_pressure(member.engine.name, pressure)
            await self._clock.sleep_ms(PRESSURE_EVERY_MS)

    async def _probe(self, member: _Member) -> None:
        engine, was_up = member.engine, member.is_up
        try:
            member.models = await engine.probe()
            is_up, member.reason = True, None
        except Exception as error:  # one engine, or its plugin, must not end the server
            is_known = isinstance(error, (EngineFailed, EngineTimeout, Unavailable))
            reason = error.message if isinstance(error, WirthforgeError) else f"Engine {engine.name} cannot be asked."
            is_up, member.reason = False, reason
            if was_up is not False:
                log.warning("engine is away", engine=engine.name, reason=reason, exc_info=None if is_known else error)
        if is_up and not was_up:
            models = [model.id for model in member.models or ()]
            log.info("engine is up", engine=engine.name, slots=engine.slots, models=models)
        member.is_up = is_up
        if self._members.get(engine.name) is member:
            self._tell(member)

    def _tell(self, member: _Member) -> None:
        ENGINE_UP.labels(member.engine.name).set(bool(member.is_up))
        if member.is_up:
            self._on_probed(member.engine)

    async def close(self) -> None:
        """Let go of all connections."""
        for member in (*self._members.values(), *self._retired):
            await member.engine.close()
