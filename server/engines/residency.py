"""What is in memory, and whose turn it is: loading and unloading for all engines of one box.

Weights are large, loading them takes seconds to minutes, and a box holds fewer models than people want. This is a
cache whose misses are paid with everybody's time, so there are rules:

1. **One load.** However many requests want a cold model, it is loaded once, and at one time one model of the box is
   loaded. The load belongs to the box, not to a request: who leaves meanwhile spoils it for nobody.
2. **Busy stays.** Requests run inside `async with residency.use(...)`. A model in use is never unloaded.
3. **Only for need.** Nothing is unloaded until something else needs the room; then `eviction.py` says what goes.
4. **Turns.** Cold models are served in the order in which somebody began to wait, and the first who waits is not
   overtaken. A model in demand keeps its place for `hold_ms_min`. When that is over and another waits for its room, it
   yields: what runs ends, nobody new enters, and those who come wait for its next turn. So where n models take turns in
   room for one, nobody waits longer than `n * (longest answer + unload + load) + (n - 1) * hold`. And loads are
   bounded: in constant demand one in `hold + load`, and where people pause, one in twice the time that a load takes.
5. **Failure is shared once.** A load that fails fails for all who wait for it; the next attempt is allowed after a
   back-off that doubles. Nobody waits longer than `wait_ms_max`.

Where each model is comes from the engines themselves, every ten seconds and before a load. What this replica counts as
in use is only its own; an engine that can tell of others' requests says `busy`. The rules need one `Residency` per box
(boxes.py), so where several replicas serve one box, one of them must have it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count

import structlog

from server.clock import Clock
from server.deadline import first_of, within
from server.engines.drivers import Driver
from server.engines.eviction import Plan, make_room
from server.engines.gauge import Gauge, NoGauge
from server.engines.places import Bounds, Load, Place, Placed, State, Waiter, failed_lately, reason, too_large, unknown
from server.errors import Conflict, NotFound, Unavailable

STATES_MS_MAX = 5_000
UNLOAD_MS_MAX = 60_000
# Engines also move models on their own.
LOOK_EVERY_MS = 10_000

log = structlog.get_logger(__name__)

OnLoad = Callable[[Load], None]


class Residency:
    """One per box.

    Args:
        drivers: by engine. A request to an engine that has none enters at once: there is nothing to load.
        size_bytes: what a model of an engine takes while it is resident.
        budget_bytes: what all together may take.
        on_load: told of every load.
        gauge: what the devices of the box say; without one, only what is booked counts.
    """

    def __init__(
        self,
        drivers: Mapping[str, Driver],
        *,
        size_bytes: Callable[[str, str], int],
        budget_bytes: Callable[[], int],
        clock: Clock,
        on_load: OnLoad,
        bounds: Bounds | None = None,
        gauge: Gauge | None = None,
    ) -> None:
        self._drivers = dict(drivers)
        self._gauge = gauge or NoGauge()
        self._size_bytes = size_bytes
        self.budget_bytes = budget_bytes
        self._clock = clock
        self._on_load = on_load
        self._bounds = bounds or Bounds()
        self._places: dict[tuple[str, str], Place] = {}
        self._listed: dict[str, frozenset[str]] = {}
        self._numbers = count()
        self._changed = asyncio.Event()
        # One thing moves at a time; `_moves` tells whether something has since an engine was asked.
        self._moving = asyncio.Lock()
        self._moves = 0
        self._is_fresh = False
        self._look_ms = 0
        # GreedyDual's inflation: the score of what went last.
        self._age = 0

    def join(self, engine: str, driver: Driver) -> None:
        """Take over an engine."""
        self._drivers[engine] = driver
        self._is_fresh, self._look_ms = False, 0
        self._changed.set()

    def leave(self, engine: str) -> None:
        """Let go of an engine; who waits for its models is told so."""
        self._drivers.pop(engine, None)
        self._listed.pop(engine, None)
        for place in [place for place in self._places.values() if place.engine == engine]:
            place.fail(lambda: Unavailable(f"Engine {engine} was removed.", code="engine_removed"))
            del self._places[place.engine, place.model]
        self._changed.set()

    def view(self) -> list[Placed]:
        """Every model that is known."""
        return [place.view() for place in self._places.values()]

    @asynccontextmanager
    async def use(self, engine: str, model: str, *, caused_by: str) -> AsyncIterator[Load | None]:
        """Have the model in memory while the block runs; gives the load that it had to wait for.

        Args:
            caused_by: who is charged if this request is the one that makes the model come.

        Raises:
            Unavailable: too many wait, it took too long, the load failed, or the model is larger than the box.
            NotFound: the engine does not have it.
        """
        if engine not in self._drivers:
            yield None
            return
        place = self._place(engine, model)
        load = await self._enter(place, caused_by)
        try:
            yield load
        finally:
            self._leave(place)

    async def _enter(self, place: Place, caused_by: str) -> Load | None:
        if place.is_open:
            self._admit(place)
            return None
        now_ms = self._clock.monotonic_ms()
        if now_ms < place.refused_until_ms:
            raise failed_lately(place, now_ms)
        if sum(len(each.waiting) for each in self._places.values()) >= self._bounds.waiting_max:
            raise Unavailable(
                "Too many requests wait for models to be loaded.", code="loading_queue_full", retry_after_s=10
            )
        waiter = Waiter(next(self._numbers), caused_by, asyncio.get_running_loop().create_future())
        place.waiting.append(waiter)
        self._changed.set()
        try:
            if not await first_of(waiter.turn, self._clock, self._bounds.wait_ms_max):
                raise Unavailable(
                    f"Model {place.model} did not get its turn in memory in {self._bounds.wait_ms_max // 1000} s.",
                    code="loading_timeout",
                    retry_after_s=(place.cost_ms + self._bounds.hold_ms_min) // 1000,
                )
            return waiter.turn.result()
        except asyncio.CancelledError:
            if waiter.turn.done() and waiter.turn.exception() is None:
                self._leave(place)
            raise
        finally:
            if waiter in place.waiting:
                place.waiting.remove(waiter)
                self._changed.set()

    def _admit(self, place: Place) -> None:
        place.in_use += 1
        place.touch(self._clock.monotonic_ms(), self._age)

    def _leave(self, place: Place) -> None:
        place.in_use -= 1
        place.touch(self._clock.monotonic_ms(), self._age)
        self._changed.set()

    def _place(self, engine: str, model: str) -> Place:
        place = self._places.get((engine, model))
        if place is None:
            place = self._places[engine, model] = Place(engine, model, size_bytes=self._size_bytes(engine, model))
        return place

    async def run(self) -> None:
        """Load and unload as needed, until cancelled."""
        while True:
            self._changed.clear()
            look_again_ms = await self._step()
            if look_again_ms != 0:
                await self._pause(look_again_ms)

    async def _pause(self, duration_ms: int | None) -> None:
        """Until something changes, or the time is over; then the engines are asked anew."""
        if duration_ms is None:
            await self._changed.wait()
            return
        change = asyncio.ensure_future(self._changed.wait())
        try:
            self._is_fresh = await first_of(change, self._clock, duration_ms) and self._is_fresh
        finally:
            change.cancel()

    async def _step(self) -> int | None:
        """Do the next thing; gives after how many milliseconds to look again, None if only a change can help."""
        async with self._moving:
            head = self._head()
            now_ms = self._clock.monotonic_ms()
            if head is None:
                return await self._idle(now_ms)
            if not self._is_fresh:
                self._is_fresh = True
                await self.refresh()
                return 0
            if head.model not in self._listed.get(head.engine, {head.model}):
                # Found out before anything had to go for it.
                head.fail(lambda: unknown(head))
                return 0
            budget_bytes = self.budget_bytes()
            head.size_bytes = self._size_bytes(head.engine, head.model)
            if head.size_bytes > budget_bytes:
                head.fail(lambda: too_large(head, budget_bytes))
                return 0
            plan = self._plan(head, now_ms)
            # What is free stays open for as long as others must end first.
            self._yield_only(plan.evict if plan.is_ready else plan.drain)
            if not plan.is_ready:
                return plan.next_look_ms(now_ms)
            await self._bring(head, plan.evict)
            return 0

    async def _idle(self, now_ms: int) -> int:
        self._is_fresh = False
        self._yield_only(())
        if now_ms < self._look_ms:
            return self._look_ms - now_ms
        self._look_ms = now_ms + LOOK_EVERY_MS
        await self.refresh()
        return 0

    def _head(self) -> Place | None:
        """The cold model that somebody has waited for the longest."""
        cold = [place for place in self._places.values() if place.waiting and not place.is_resident]
        return min(cold, key=lambda place: place.waiting[0].number, default=None)

    def _plan(self, head: Place, now_ms: int) -> Plan:
        residents = self._residents()
        room_bytes = self._room_bytes(head.engine, residents)
        hold_ms = self._bounds.hold_ms_min
        return make_room(head.size_bytes, residents, budget_bytes=room_bytes, now_ms=now_ms, hold_ms=hold_ms)

    def _residents(self) -> list[Place]:
        """All that take room, with their sizes as they are now."""
        residents = [place for place in self._places.values() if place.is_resident]
        for place in residents:
            place.size_bytes = self._size_bytes(place.engine, place.model)
        return residents

    def _room_bytes(self, engine: str, residents: Sequence[Place]) -> int:
        """What all together may take where a model of this engine comes to these."""
        budget_bytes, free_bytes = self.budget_bytes(), self._gauge.free_for(engine)
        if free_bytes is None:
            return budget_bytes
        # What nobody has booked takes room too.
        return min(budget_bytes, sum(place.size_bytes for place in residents) + free_bytes)

    def _yield_only(self, closed: tuple[Place, ...]) -> None:
        for place in self._places.values():
            place.is_yielding = place in closed
            self._let_in(place, None)

    def _let_in(self, place: Place, load: Load | None) -> None:
        """Everybody who waits for a model that is open."""
        while place.is_open and place.waiting:
            waiter = place.waiting.popleft()
            if not waiter.turn.done():
                self._admit(place)
                waiter.turn.set_result(load)

    async def _bring(self, head: Place, victims: tuple[Place, ...]) -> None:
        """Make room and load, as far as both are still wanted."""
        for victim in victims:
            if not head.waiting or not await self._unload(victim):
                return
        if head.waiting:
            await self._load(head, victims)

    async def _unload(self, victim: Place) -> bool:
        driver = self._drivers.get(victim.engine)
        if driver is None:
            return False
        assert not victim.in_use, "it was closed before"
        victim.is_moving = True
        try:
            await within(self._clock, driver.unload(victim.model), UNLOAD_MS_MAX)
        except Exception as error:  # noqa: BLE001 (a driver may come from a plugin)
            log.warning("model could not be unloaded", engine=victim.engine, model=victim.model, reason=reason(error))
            victim.pinned_until_ms = self._clock.monotonic_ms() + self._bounds.backoff_ms_min
            return False
        finally:
            victim.is_moving = False
            self._moves += 1
            self._is_fresh = False
        victim.state = driver.rests_in
        self._age = max(self._age, victim.score)
        log.info("model unloaded", engine=victim.engine, model=victim.model)
        return True

    async def _load(self, head: Place, victims: tuple[Place, ...]) -> Load | None:
        caused_by = head.asker
        head.is_moving = True
        try:
            async with self._gauge.measuring(head.engine, head.model):
                began_ms = self._clock.monotonic_ms()
                await within(self._clock, self._drivers[head.engine].load(head.model), self._bounds.load_ms_max)
                took_ms = self._clock.monotonic_ms() - began_ms
        except Exception as error:  # noqa: BLE001 (a driver may come from a plugin)
            await self._load_failed(head, error, is_wanted=bool(caused_by or head.waiting))
            return None
        finally:
            head.is_moving = False
            self._moves += 1
            self._is_fresh = False
        now_ms = self._clock.monotonic_ms()
        load = Load(
            engine=head.engine,
            model=head.model,
            caused_by=caused_by,
            took_ms=took_ms,
            evicted=tuple((victim.engine, victim.model) for victim in victims),
        )
        head.state = State.RESIDENT
        head.reload_ms = max(1, load.took_ms)
        head.held_until_ms = now_ms + self._bounds.hold_ms_min
        head.failures = 0
        head.touch(now_ms, self._age)
        self._let_in(head, load)
        log.info("model loaded", engine=head.engine, model=head.model, took_ms=load.took_ms, evicted=len(victims))
        self._on_load(load)
        return load

    async def _load_failed(self, head: Place, error: Exception, *, is_wanted: bool) -> None:
        bounds = self._bounds
        log.warning("model could not be loaded", engine=head.engine, model=head.model, reason=reason(error))
        now_ms = self._clock.monotonic_ms()
        if isinstance(error, NotFound):
            head.fail(lambda: unknown(head))
            return
        if is_wanted:
            backoff_ms = min(bounds.backoff_ms_max, bounds.backoff_ms_min << min(head.failures, 20))
            head.failures += 1
            head.refused_until_ms = now_ms + backoff_ms
            head.fail(lambda: failed_lately(head, now_ms))
        # Half a model may lie in memory.
        await self._unload(head)

    async def unload(self, engine: str, model: str) -> None:
        """Take a model out of memory because an admin says so.

        Raises:
            NotFound: there is no such model, or its engine cannot.
            Conflict: it is in use.
            Unavailable: the engine did not do it.
        """
        async with self._moving:
            place = self._places.get((engine, model))
            if place is None or engine not in self._drivers:
                raise NotFound(f"Engine {engine} has no model {model!r} that could be unloaded.")
            if place.in_use:
                raise Conflict(f"Model {model} is in use by {place.in_use} requests.", code="model_busy")
            if place.is_resident and not await self._unload(place):
                raise Unavailable(f"Engine {engine} did not unload {model}.", retry_after_s=5)
        self._changed.set()

    async def refresh(self) -> None:
        """Ask the engines where their models are. An engine that does not answer keeps what is believed of it."""
        asked = [self._ask(engine, driver) for engine, driver in list(self._drivers.items())]
        await asyncio.gather(self._gauge.read(), *asked)

    async def _ask(self, engine: str, driver: Driver) -> None:
        moves = self._moves
        try:
            states = await within(self._clock, driver.states(), STATES_MS_MAX)
        except Exception as error:  # noqa: BLE001 (a driver may come from a plugin)
            log.debug("engine does not tell its models", engine=engine, reason=reason(error))
            return
        # What was told while something moved may be of before.
        if moves != self._moves or engine not in self._drivers:
            return
        self._listed[engine] = frozenset(states)
        for model in states:
            self._place(engine, model)
        for place in [place for place in self._places.values() if place.engine == engine and not place.is_moving]:
            self._believe(place, states.get(place.model, State.COLD))
            if place.model not in states and not place.in_use and not place.waiting:
                del self._places[engine, place.model]

    def _believe(self, place: Place, state: State) -> None:
        is_told_resident = state in {State.RESIDENT, State.BUSY}
        if place.in_use and not is_told_resident:
            # Its requests will fail, and leave; until then nothing is to be done about it.
            return
        if is_told_resident and not place.is_resident:
            # Somebody else loaded it: it has no hold, and goes first.
            place.held_until_ms = place.used_at_ms = 0
            place.score = self._age
            self._changed.set()
        place.is_used_elsewhere = state is State.BUSY and not place.in_use
        place.state = state
