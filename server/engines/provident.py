"""A residency that also loads what nobody waits for yet, because it is likely to be asked for next.

What residency.py does for people who wait stays as it is; this only uses the time in which nobody does. Its rules:

1. **Nobody pays.** A model that came unasked is charged to nobody, and it has no hold: whoever needs its room has it
   at once, before that of any model that was used.
2. **People first.** As soon as anybody wants anything else of the box, the load is broken off and what there is of it
   is taken out again; only an unload that has begun is ended first. Who wants the very model that is coming waits for
   the rest of the load, which then is like any other.
3. **Only for gain.** What fits beside all others is loaded when it is likely enough. Something goes for it only where
   it has been idle for KEPT_MS, is GAIN_MIN times less likely, and the waiting that is saved (chance times load time)
   is GAIN_MIN times what may be lost. Nothing busy goes, nothing held, nothing that is likelier.
4. **What is not known is not risked.** Where nobody knows what a model takes, or what its box has, it is loaded only
   into an empty box: another model might be thrown out by the engine itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog
from msgspec import Struct

from server.deadline import first_of
from server.engines.eviction import make_room
from server.engines.gauge import UNBOUNDED_BYTES
from server.engines.places import Load, Place
from server.engines.residency import Residency

# Less likely models are not worth the electricity.
CHANCE_MIN = 0.05
GAIN_MIN = 2.0
KEPT_MS = 300_000
# How soon it is noticed that somebody wants something else.
WATCH_EVERY_MS = 25

log = structlog.get_logger(__name__)


class Outcome(StrEnum):
    """What came of a load for which nobody has asked."""

    LOADED = "loaded"
    BROKEN_OFF = "broken_off"
    FAILED = "failed"


class Preload(Struct, frozen=True, kw_only=True):
    """A load for which nobody has asked.

    Attributes:
        evicted: what went for it, as (engine, model); also where it came to nothing.
        is_used: somebody came while it was loaded.
    """

    engine: str
    model: str
    outcome: Outcome
    took_ms: int = 0
    evicted: tuple[tuple[str, str], ...] = ()
    is_used: bool = False


@dataclass(frozen=True, slots=True)
class Foresight:
    """What is thought of the next minutes.

    Attributes:
        chances: that somebody asks for a model, 0 to 1; of others nothing is thought.
        may_come: whether a model of an engine may be loaded unasked now.
        may_evict: whether something may go for it.
    """

    chances: Mapping[str, float]
    may_come: Callable[[str, str], bool] = lambda _engine, _model: True
    may_evict: bool = True

    def chance(self, place: Place) -> float:
        """That somebody asks for it."""
        return self.chances.get(place.model, 0.0)

    def worth_ms(self, place: Place) -> float:
        """The waiting that its being there is expected to save."""
        return self.chance(place) * place.cost_ms


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to come, and what goes for it."""

    place: Place
    evict: tuple[Place, ...] = ()


def choose(
    places: Sequence[Place],
    foresight: Foresight,
    room_bytes: Callable[[str], int],
    *,
    now_ms: int,
    hold_ms: int,
) -> Choice | None:
    """The likeliest model that is not in memory and may come; None if there is none. Pure.

    Args:
        room_bytes: what all models together may take where one of this engine comes to them.
        hold_ms: `hold_ms_min` of the bounds.
    """
    residents = [place for place in places if place.is_resident]
    there = {place.model for place in residents}
    cold = [
        place
        for place in places
        if place.model not in there
        and foresight.chance(place) >= CHANCE_MIN
        and not place.waiting
        and not place.is_moving
        and now_ms >= place.refused_until_ms
        and foresight.may_come(place.engine, place.model)
    ]
    cold.sort(key=lambda place: (-foresight.chance(place), place.cost_ms, place.engine))
    for place in cold:
        room = room_bytes(place.engine)
        if place.size_bytes <= 0 or room >= UNBOUNDED_BYTES:
            if not residents:
                return Choice(place)
            continue
        found = _room_for(place, residents, foresight, room, now_ms=now_ms, hold_ms=hold_ms)
        if found is not None:
            return found
    return None


def _room_for(
    place: Place, residents: Sequence[Place], foresight: Foresight, room_bytes: int, *, now_ms: int, hold_ms: int
) -> Choice | None:
    lesser = [
        each
        for each in residents
        if foresight.may_evict
        and not each.in_use
        and not each.waiting
        and now_ms - each.used_at_ms >= KEPT_MS
        and GAIN_MIN * foresight.chance(each) <= foresight.chance(place)
    ]
    lesser.sort(key=foresight.worth_ms)
    for number in range(len(lesser) + 1):
        going = lesser[:number]
        kept_bytes = sum(each.size_bytes for each in residents if each not in going)
        plan = make_room(place.size_bytes, going, budget_bytes=room_bytes - kept_bytes, now_ms=now_ms, hold_ms=hold_ms)
        if plan.is_ready:
            lost_ms = sum(foresight.worth_ms(each) for each in plan.evict)
            is_worth_it = not plan.evict or GAIN_MIN * lost_ms <= foresight.worth_ms(place)
            return Choice(place, plan.evict) if is_worth_it else None
    return None


class ProvidentResidency(Residency):
    """See above; the rest is Residency's."""

    @property
    def is_quiet(self) -> bool:
        """Whether nobody uses the box, waits for it, or moves something in it."""
        return not any(
            place.in_use or place.waiting or place.is_moving or place.is_used_elsewhere
            for place in self._places.values()
        )

    def foresees(self, foresight: Foresight) -> bool:
        """Whether something could be loaded, by what is believed of the engines."""
        return self._chosen(foresight) is not None

    async def preload(self, foresight: Foresight, is_used: Callable[[], Awaitable[bool]]) -> Preload | None:
        """Load the likeliest model for which there is room, unless somebody wants something else of the box.

        Args:
            is_used: whether the box is used in a way that is not seen here; asked all the time.

        Returns:
            What came of it; None if nothing was begun.
        """
        async with self._moving:
            await self.refresh()
            choice = self._chosen(foresight)
            if choice is None or not self.is_quiet or await is_used() or not self.is_quiet:
                return None
            try:
                return await self._preload(choice, is_used)
            finally:
                self._changed.set()

    def _chosen(self, foresight: Foresight) -> Choice | None:
        residents = self._residents()
        for place in self._places.values():
            place.size_bytes = self._size_bytes(place.engine, place.model)
        return choose(
            [place for place in self._places.values() if place.engine in self._drivers],
            foresight,
            lambda engine: self._room_bytes(engine, residents),
            now_ms=self._clock.monotonic_ms(),
            hold_ms=self._bounds.hold_ms_min,
        )

    async def _preload(self, choice: Choice, is_used: Callable[[], Awaitable[bool]]) -> Preload:
        place = choice.place
        gone: list[Place] = []
        for victim in choice.evict:
            # Whoever came while another went finds the rest as it was.
            if not self.is_quiet or not await self._unload(victim):
                return _told(place, Outcome.BROKEN_OFF, gone)
            gone.append(victim)
        if not self.is_quiet:
            return _told(place, Outcome.BROKEN_OFF, gone)
        loading = asyncio.ensure_future(self._load(place, tuple(gone)))
        try:
            is_done = await self._unless_wanted(loading, place, is_used)
        finally:
            loading.cancel()
            await asyncio.wait({loading})
        if not is_done:
            log.info("preload broken off", engine=place.engine, model=place.model)
            if place.engine in self._drivers:
                await self._unload(place)  # half a model may lie in memory
            return _told(place, Outcome.BROKEN_OFF, gone)
        load = loading.result()
        if load is None:
            return _told(place, Outcome.FAILED, gone)
        if not place.in_use:
            place.held_until_ms = place.used_at_ms = 0
            place.score = self._age
        return _told(place, Outcome.LOADED, gone, load.took_ms)

    async def _unless_wanted(
        self, loading: asyncio.Task[Load | None], place: Place, is_used: Callable[[], Awaitable[bool]]
    ) -> bool:
        """Wait for a load; False as soon as something else is wanted. Once somebody waits for it, it goes on."""
        while not await first_of(loading, self._clock, WATCH_EVERY_MS):
            if place.waiting:
                continue
            others = (each for each in self._places.values() if each is not place)
            if any(each.in_use or each.waiting for each in others) or place.engine not in self._drivers:
                return False
            if await is_used() and not loading.done() and not place.waiting:
                return False
        return True


def _told(place: Place, outcome: Outcome, gone: Sequence[Place], took_ms: int = 0) -> Preload:
    evicted = tuple((each.engine, each.model) for each in gone)
    return Preload(
        engine=place.engine,
        model=place.model,
        outcome=outcome,
        took_ms=took_ms,
        evicted=evicted,
        is_used=bool(place.in_use),
    )
