"""Does loading models before anybody asks help? A week of people with habits, with and without it.

`python -m benchmarks.preloading` simulates eight weeks of requests, learns from them (server/allocator/forecast.py),
and plays a ninth against the real residency (server/engines/provident.py) and the real loop (preloading.py) in virtual
time. Only the engine, which takes its time to load, and the people are made up: some models that do not all fit; each
person has sittings at usual hours, which begin early or late and are sometimes skipped, and others at any time. In a
sitting somebody asks, reads, and asks again. The same weeks are played both ways, for several seeds.
"""

import argparse
import asyncio
import logging
import random
import selectors
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from server.allocator.forecast import HOUR_MS, WEEK_MS, Cell, Forecast, History, Lately, hour_of_week, weight_of_age
from server.engines.boxes import Boxes, NoMachine
from server.engines.openai_compatible import OpenAICompatible
from server.engines.places import GIB, NOBODY, Load, State
from server.engines.pool import Pool
from server.engines.preloading import Observed, Preloading
from server.errors import NotFound
from server.messages import ModelMemory, Pressure, ServedModel
from server.usage.history import MODELS_WITHIN_MS

ENGINE = "box"
BOX_GIB = 24
SIZES_GIB = {"large": 20, "code": 14, "small": 5, "draw": 9, "talk": 8}
GIB_PER_S = 1.5
WEEKS = 8
# A Monday at midnight.
BEGINNING = datetime(2026, 9, 7, tzinfo=UTC)
BEGINNING_MS = int(BEGINNING.timestamp() * 1000)
UNLOAD_MS = 500
MINUTE_MS = 60_000
# How old a forecast may be; to save the time of the simulation.
FRESH_MS = 20_000


@dataclass(frozen=True)
class Habit:
    """A usual sitting.

    Attributes:
        days: of the week, 0 is Monday.
        begins_h: the hour at which it begins, give or take `SLACK_MS`.
        kept: how often it takes place.
    """

    days: tuple[int, ...]
    begins_h: float
    model: str
    kept: float = 0.8


@dataclass(frozen=True)
class Person:
    """Somebody; `strays` is how many sittings at any time they have in a week."""

    name: str
    habits: tuple[Habit, ...]
    likes: tuple[str, ...]
    strays: int


SLACK_MS = 15 * MINUTE_MS
WORKDAYS = (0, 1, 2, 3, 4)
PEOPLE = (
    Person("ann", (Habit(WORKDAYS, 8.5, "code"), Habit(WORKDAYS, 13.5, "code")), ("code", "small"), 3),
    Person("bob", (Habit((0, 2, 4), 10.0, "large"), Habit((1, 3), 20.0, "talk")), ("large", "talk"), 3),
    Person("eve", (Habit((*WORKDAYS, 5), 18.5, "talk"), Habit((5, 6), 11.0, "draw")), ("draw", "small"), 3),
    Person("tom", (Habit((6,), 16.0, "large"), Habit(WORKDAYS, 21.5, "small")), ("small", "large"), 2),
)
# The same people without any usual hour, as often.
DRIFTERS = tuple(
    Person(each.name, (), each.likes, each.strays + sum(len(habit.days) for habit in each.habits)) for each in PEOPLE
)


@dataclass(frozen=True)
class Sitting:
    """When it begins, and its requests: what is waited before each, and how long the answer is."""

    person: str
    model: str
    begins_ms: int
    requests: tuple[tuple[int, int], ...]


def week_of(people: Sequence[Person], week: int, chance: random.Random) -> list[Sitting]:
    """All sittings of a week, in no order."""
    found = []
    begin_ms = BEGINNING_MS + week * WEEK_MS
    for person in people:
        begins = [
            (begin_ms + int((24 * day + habit.begins_h) * HOUR_MS + chance.gauss(0, SLACK_MS)), habit.model)
            for habit in person.habits
            for day in habit.days
            if chance.random() < habit.kept
        ]
        begins += [
            (begin_ms + int((24 * chance.randrange(7) + chance.uniform(8, 23)) * HOUR_MS), chance.choice(person.likes))
            for _ in range(person.strays)
        ]
        for at_ms, model in begins:
            requests = tuple(
                (int(chance.expovariate(1 / 90_000)) if number else 0, int(chance.uniform(3_000, 25_000)))
                for number in range(1 + int(chance.expovariate(1 / 8)))
            )
            found.append(Sitting(person.name, model, max(at_ms, begin_ms), requests))
    return found


class Loop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        """Seconds since the beginning of the week."""
        return self.now_s


class _Jump(selectors.SelectSelector):
    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing will ever happen again"
        self._loop.now_s += max(0.0, timeout)
        return super().select(0)


class LoopClock:
    """A `server.clock.Clock` by the loop's time."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        """Wall-clock time, in the ninth week."""
        return BEGINNING + timedelta(weeks=WEEKS, seconds=self._loop.now_s)

    def monotonic_ms(self) -> int:
        """Milliseconds since some time before the beginning."""
        return HOUR_MS + round(self._loop.now_s * 1_000)

    def monotonic_us(self) -> int:
        """Microseconds since then."""
        return HOUR_MS * 1_000 + round(self._loop.now_s * 1_000_000)

    async def sleep_ms(self, duration_ms: int) -> None:
        """Let it pass."""
        turn = self._loop.create_future()
        timer = self._loop.call_later(max(0, duration_ms) / 1_000, turn.set_result, None)
        try:
            await turn
        finally:
            timer.cancel()


class SlowEngine:
    """Loads and unloads in its time (`server.engines.drivers.Driver`)."""

    rests_in = State.COLD

    def __init__(self, clock: LoopClock) -> None:
        self._clock = clock
        self._resident: set[str] = set()

    async def states(self) -> dict[str, State]:
        """Every model, and where it is."""
        return {model: State.RESIDENT if model in self._resident else State.COLD for model in SIZES_GIB}

    async def load(self, model: str) -> None:
        """As fast as the disk."""
        if model not in SIZES_GIB:
            raise NotFound("No such model.")
        await self._clock.sleep_ms(1_000 + int(1_000 * SIZES_GIB[model] / GIB_PER_S))
        self._resident.add(model)
        assert sum(SIZES_GIB[each] for each in self._resident) <= BOX_GIB

    async def unload(self, model: str) -> None:
        """In a moment."""
        await self._clock.sleep_ms(UNLOAD_MS)
        self._resident.discard(model)


class Listed(OpenAICompatible):
    """An engine that is up and lists its models; nothing is asked of it."""

    async def probe(self) -> tuple[ServedModel, ...]:
        """All of them."""
        return tuple(ServedModel(id=model, context_tokens=4096, is_demonstration=False) for model in SIZES_GIB)

    async def metrics(self) -> str | None:
        """None."""
        return None

    async def pressure(self) -> Pressure | None:
        """None."""
        return None


class Expects:
    """As server/usage/history.py, from what was simulated instead of Postgres; read anew every hour."""

    def __init__(self, clock: LoopClock, past: Iterable[tuple[int, str, str]]) -> None:
        self._clock = clock
        self._past = list(past)
        self._lately = Lately(since_ms=self._now_ms)
        self._hour = -1
        self._fresh: tuple[int, Mapping[str, float]] = 0, {}
        self._forecast = Forecast(History(since_ms=0, at_ms=0))

    @property
    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)

    def saw(self, user: str, model: str) -> None:
        """A request begins."""
        self._lately.saw(user, model, self._now_ms)
        self._past.append((self._now_ms, user, model))
        self._fresh = 0, {}

    def models(self) -> Mapping[str, float]:
        """How likely each model is asked for."""
        now_ms = self._now_ms
        if now_ms - self._fresh[0] < FRESH_MS:
            return self._fresh[1]
        if now_ms // HOUR_MS != self._hour:
            self._hour = now_ms // HOUR_MS
            counts: dict[tuple[str, str, int], float] = {}
            for at_ms, user, model in self._past:
                key = user, model, hour_of_week(at_ms)
                counts[key] = counts.get(key, 0.0) + weight_of_age(now_ms - at_ms)
            cells = tuple(Cell(*key, requests) for key, requests in counts.items())
            self._forecast = Forecast(History(since_ms=BEGINNING_MS, at_ms=now_ms, cells=cells))
        self._fresh = now_ms, self._forecast.expect(self._lately, now_ms, MODELS_WITHIN_MS).chances()
        return self._fresh[1]


@dataclass
class Score:
    """What came of a week."""

    requests: int = 0
    found: int = 0
    sittings: int = 0
    met: int = 0
    waits_ms: list[int] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)

    def __add__(self, other: "Score") -> "Score":
        return Score(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})


async def play(sittings: Sequence[Sitting], past: Iterable[tuple[int, str, str]], *, preloads: bool) -> Score:
    """A week of the box."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    clock, score = LoopClock(loop), Score()
    boxes = Boxes(
        NoMachine(),
        memory_bytes=BOX_GIB * GIB,
        estimated=lambda _, model: ModelMemory(SIZES_GIB[model] * GIB, SIZES_GIB[model] * GIB),
        clock=clock,
        on_load=score.loads.append,
    )
    boxes.join(ENGINE, SlowEngine(clock), url="http://127.0.0.1:1")
    adapter = Listed("http://127.0.0.1:1", name=ENGINE, slots=4, silence_ms_max=1_000)
    pool = Pool([adapter], clock=clock, on_probed=lambda _: None, on_pressure=lambda *_: None)
    await pool.probe_all()
    expects = Expects(clock, past)
    observed = Observed(boxes, clock)
    preloading = Preloading(
        boxes=boxes, pool=pool, observed=observed, expects=expects, clock=clock, load=_nothing, turn=_ours
    )

    async def sit(sitting: Sitting) -> None:
        await clock.sleep_ms(sitting.begins_ms - int(clock.now().timestamp() * 1000))
        for number, (pause_ms, answer_ms) in enumerate(sitting.requests):
            await clock.sleep_ms(pause_ms)
            began_ms = clock.monotonic_ms()
            expects.saw(sitting.person, sitting.model)
            async with observed.use(ENGINE, sitting.model, caused_by=sitting.person):
                wait_ms = clock.monotonic_ms() - began_ms
                score.requests += 1
                score.found += not wait_ms
                score.sittings += not number
                score.met += not number and not wait_ms
                score.waits_ms.append(wait_ms)
                with pool.using(adapter):
                    await clock.sleep_ms(answer_ms)

    running = [asyncio.create_task(boxes.run())]
    if preloads:
        running.append(asyncio.create_task(preloading.run()))
    await asyncio.gather(*(sit(each) for each in sittings))
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    await pool.close()
    return score


async def _nothing(_engine: str) -> tuple[int, int]:
    return 0, 0


@asynccontextmanager
async def _ours() -> AsyncIterator[bool]:
    yield True


def weeks(people: Sequence[Person], seed: int, *, preloads: bool) -> Score:
    """Simulate the past, and play the week after it."""
    chance = random.Random(seed)  # noqa: S311 (a simulation)
    past = [week_of(people, week, chance) for week in range(WEEKS)]
    coming = week_of(people, WEEKS, chance)
    asked = [
        (sitting.begins_ms + sum(pause_ms + answer_ms for pause_ms, answer_ms in sitting.requests[:number]), *who)
        for week in past
        for sitting in week
        for who in [(sitting.person, sitting.model)]
        for number in range(len(sitting.requests))
    ]
    loop = Loop()
    try:
        return loop.run_until_complete(play(coming, asked, preloads=preloads))
    finally:
        loop.close()


def row(name: str, score: Score) -> str:
    """A line of the table."""
    waits = sorted(score.waits_ms)
    mean_s = sum(waits) / len(waits) / 1_000
    unasked = sum(load.caused_by == NOBODY for load in score.loads)
    return (
        f"| {name} | {100 * score.found / score.requests:.1f} % | {100 * score.met / score.sittings:.0f} % | "
        f"{mean_s:.2f} s | {waits[len(waits) * 99 // 100] / 1_000:.1f} s | {len(score.loads) - unasked} | {unasked} |"
    )


def main() -> None:
    """Play all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(1, parser.parse_args().seeds + 1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print("| | found it loaded | first of a sitting | wait, mean | 99 % | loads waited for | loads unasked |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for who, people in (("habits", PEOPLE), ("no habits", DRIFTERS)):
        for how, preloads in (("without", False), ("with", True)):
            scores = [weeks(people, seed, preloads=preloads) for seed in seeds]
            print(row(f"{who}, {how}", sum(scores, Score())), flush=True)


if __name__ == "__main__":
    main()
