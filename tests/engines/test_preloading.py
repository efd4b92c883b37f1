"""Models that come before anybody asks: in idle time only, for gain only, out of people's way; in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.db.session import Database
from server.engines.boxes import Boxes, NoMachine
from server.engines.calibrating import ADVISORY_LOCK
from server.engines.gauge import UNBOUNDED_BYTES
from server.engines.places import GIB, NOBODY, Load, Place, State
from server.engines.pool import Pool
from server.engines.preloading import (
    EVICT_EVERY_MS,
    FAILED_REST_MS,
    IDLE_MS,
    LOOK_EVERY_MS,
    REST_MS_MIN,
    USED,
    Observed,
    Preloading,
    only_one,
)
from server.engines.provident import CHANCE_MIN, GAIN_MIN, KEPT_MS, WATCH_EVERY_MS, Foresight, Outcome, choose
from server.errors import WirthforgeError
from server.messages import ModelMemory, ServedModel
from server.telemetry import MODEL_PRELOADS
from tests.clocks import FakeClock
from tests.engines.test_residency import BOUNDS, ENGINE, UNLOAD_MS, VirtualEngine, settle
from tests.engines.virtual import Machine
from tests.engines.virtual import VirtualEngine as Adapter

LOAD_MS = 4_000
# Looks come every so often, and two are needed: one that finds the box idle, and one that finds that it stayed so.
IDLE_MS_MAX = IDLE_MS + 2 * LOOK_EVERY_MS
HOUR = timedelta(hours=1)


class Listed(Adapter):
    """An engine that lists what it is told to."""

    def __init__(self, name: str, models: list[str]) -> None:
        super().__init__(Machine(lambda _: 1_000), name=name)
        self.models = models

    async def probe(self) -> tuple[ServedModel, ...]:
        """All of them."""
        return tuple(ServedModel(id=model, context_tokens=1, is_demonstration=False) for model in self.models)


@dataclass
class House:
    """A box that is preloaded, what is expected of it, and what happened."""

    clock: FakeClock
    engine: VirtualEngine
    boxes: Boxes
    pool: Pool
    observed: Observed
    loaded: list[Load]
    chances: dict[str, float] = field(default_factory=dict)
    load: dict[str, tuple[int, int]] = field(default_factory=dict)
    is_calibrating: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    waits_ms: list[int] = field(default_factory=list)
    faults: list[WirthforgeError] = field(default_factory=list)

    def models(self) -> Mapping[str, float]:
        """See `Expects`."""
        return self.chances

    async def load_of(self, name: str) -> tuple[int, int]:
        """What the ledger says."""
        return self.load.get(name, (0, 0))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """The lock of the house."""
        yield not self.is_calibrating

    def ask(self, model: str, answer_ms: int = 1_000) -> None:
        """A request in the background, the last of `tasks`."""
        self.tasks.append(asyncio.ensure_future(self.request(model, answer_ms)))

    async def request(self, model: str, answer_ms: int = 1_000) -> None:
        """One request, and how long it waited for its model."""
        began_ms = self.clock.monotonic_ms()
        adapter = self.pool.engine(ENGINE)
        assert adapter is not None
        try:
            async with self.observed.use(ENGINE, model, caused_by="ann"):
                assert model in self.engine.resident
                self.waits_ms.append(self.clock.monotonic_ms() - began_ms)
                self.engine.running[model] += 1
                try:
                    with self.pool.using(adapter):
                        await self.clock.sleep_ms(answer_ms)
                finally:
                    self.engine.running[model] -= 1
        except WirthforgeError as error:
            self.faults.append(error)

    async def pass_ms(self, duration_ms: int) -> None:
        """Let time pass, from one timer to the next."""
        end_ms = self.clock.monotonic_ms() + duration_ms
        while True:
            await settle()
            now = self.clock._passed
            wakes = [wakes for wakes, turn in self.clock._sleepers if not turn.done()]
            step = min(min(wakes, default=now + timedelta(days=1)), timedelta(milliseconds=end_ms)) - now
            self.clock.advance(step)
            if self.clock.monotonic_ms() >= end_ms:
                await settle()
                return

    @property
    def loads(self) -> str:
        """Models in the order in which they were begun to be loaded."""
        return "".join(model for _, model in self.engine.loads)


@asynccontextmanager
async def house(
    sizes: Mapping[str, int], budget_bytes: int, *, resident: str = "", load_ms: int = LOAD_MS
) -> AsyncIterator[House]:
    """A box that runs, with preloading; sizes in GiB."""
    sizes = {model: size * GIB for model, size in sizes.items()}
    budget_bytes *= GIB
    clock = FakeClock()
    clock.advance(HOUR)
    engine = VirtualEngine(clock, dict(sizes), dict.fromkeys(sizes, load_ms), budget_bytes, resident=set(resident))
    loaded: list[Load] = []
    boxes = Boxes(
        NoMachine(),
        memory_bytes=budget_bytes,
        estimated=lambda _, model: ModelMemory(sizes.get(model, 0), sizes.get(model, 0)),
        clock=clock,
        on_load=loaded.append,
        bounds=BOUNDS,
    )
    boxes.join(ENGINE, engine, url="http://127.0.0.1:1")
    pool = Pool([Listed(ENGINE, list(sizes))], clock=clock, on_probed=lambda _: None, on_pressure=lambda *_: None)
    await pool.probe_all()
    observed = Observed(boxes, clock)
    home = House(clock, engine, boxes, pool, observed, loaded)
    preloading = Preloading(
        boxes=boxes, pool=pool, observed=observed, expects=home, clock=clock, load=home.load_of, turn=home.turn
    )
    running = [asyncio.ensure_future(boxes.run()), asyncio.ensure_future(preloading.run())]
    try:
        await home.pass_ms(1)  # the engines are asked what is there
        yield home
        assert not [each for each in running if each.done()], running
    finally:
        for task in [*home.tasks, *running]:
            task.cancel()
        await asyncio.wait([*home.tasks, *running])
    for task in home.tasks:
        assert task.cancelled() or task.exception() is None, task.exception()


@pytest.fixture(autouse=True)
def _no_counts() -> None:
    MODEL_PRELOADS.clear()


def counted() -> dict[str, float]:
    """What Prometheus is told, by outcome."""
    (metric,) = MODEL_PRELOADS.collect()
    return {sample.labels["outcome"]: sample.value for sample in metric.samples if sample.name.endswith("_total")}


async def test_an_idle_box_gets_the_likeliest_model_at_nobodys_cost() -> None:
    """Not before it has been idle for a while; then whoever asks does not wait. Prometheus is told."""
    async with house({"a": 6, "b": 6}, 10) as box:
        box.chances = {"a": 0.2, "b": 0.7}
        await box.pass_ms(IDLE_MS - 1)
        assert box.loads == ""
        await box.pass_ms(IDLE_MS_MAX + LOAD_MS - IDLE_MS)
        assert box.loaded == [Load(engine=ENGINE, model="b", caused_by=NOBODY, took_ms=LOAD_MS)]
        box.ask("b")
        await box.pass_ms(0)
        assert box.waits_ms == [0]
        assert counted() == {Outcome.LOADED: 1, USED: 1}


async def test_what_is_not_likely_is_not_loaded() -> None:
    """Room alone is no reason."""
    async with house({"a": 6}, 10) as box:
        box.chances = {"a": CHANCE_MIN * 0.99}
        await box.pass_ms(3_600_000)
        assert box.loads == ""


async def test_room_is_filled_in_the_order_of_chance() -> None:
    """One after the other, and no more than fits; an unlikely small one comes where a likely large one does not fit."""
    async with house({"a": 4, "b": 5, "c": 4, "d": 2}, 10) as box:
        box.chances = {"a": 0.3, "b": 0.5, "c": 0.28, "d": 0.2}
        await box.pass_ms(600_000)
        assert box.loads == "ba"
        box.chances["d"] = 0.9
        await box.pass_ms(600_000)
        assert box.loads == "bad"
        assert box.engine.resident in ({"b", "d"}, {"a", "d"})


async def test_nothing_is_loaded_while_somebody_is_served() -> None:
    """Neither during answers nor in the short pauses between them."""
    async with house({"a": 4, "b": 4}, 10) as box:
        box.chances = {"a": 0.9, "b": 0.9}
        box.ask("a")
        await box.pass_ms(LOAD_MS)
        for _ in range(30):
            box.ask("a", answer_ms=5_000)
            await box.pass_ms(5_000 + IDLE_MS - 1_000)
        assert box.loads == "a"
        await box.pass_ms(IDLE_MS_MAX)
        assert box.loads == "ab"


@pytest.mark.parametrize("load", [(1, 0), (0, 1)])
async def test_nothing_is_loaded_while_another_replica_is_used(load: tuple[int, int]) -> None:
    """What runs or waits anywhere is in the ledger."""
    async with house({"a": 4}, 10) as box:
        box.chances = {"a": 0.9}
        box.load[ENGINE] = load
        await box.pass_ms(600_000)
        assert box.loads == ""
        box.load.clear()
        await box.pass_ms(IDLE_MS_MAX)
        assert box.loads == "a"


async def test_nothing_is_loaded_while_something_is_calibrated() -> None:
    """Whoever measures has the box for itself."""
    async with house({"a": 4}, 10) as box:
        box.chances = {"a": 0.9}
        box.is_calibrating = True
        await box.pass_ms(600_000)
        assert box.loads == ""
        box.is_calibrating = False
        await box.pass_ms(IDLE_MS_MAX)
        assert box.loads == "a"


async def test_an_engine_that_nobody_moves_counts_for_every_box() -> None:
    """It may be on the same devices; and what it serves need not be loaded elsewhere."""
    async with house({"a": 4, "m": 4}, 10) as box:
        other = Listed("other", ["m"])
        await box.pool.change(other)
        box.chances = {"a": 0.9, "m": 0.95}
        with box.pool.using(other):
            await box.pass_ms(600_000)
        assert box.loads == ""
        await box.pass_ms(600_000)
        assert box.loads == "a"


async def test_an_engine_that_is_emptied_gets_nothing() -> None:
    """Nor would anybody be sent there."""
    async with house({"a": 4}, 10) as box:
        box.chances = {"a": 0.9}
        box.pool.drain(ENGINE, is_draining=True)
        await box.pass_ms(600_000)
        assert box.loads == ""


async def test_a_likelier_model_is_never_evicted_and_a_lesser_only_for_gain() -> None:
    """At equal chances and below twice the chance all stays; above it the lesser goes, once it was idle long enough."""
    async with house({"a": 8, "b": 8}, 10, resident="a") as box:
        for chance in (0.1, 0.4, 0.79):
            box.chances = {"a": 0.4, "b": chance}
            await box.pass_ms(600_000)
            assert box.loads == ""
        box.ask("a")
        await box.pass_ms(1_000)
        box.chances = {"a": 0.4, "b": 0.81}
        await box.pass_ms(KEPT_MS - 1)
        assert box.loads == ""
        await box.pass_ms(IDLE_MS_MAX + UNLOAD_MS + LOAD_MS)
        assert box.engine.resident == {"b"}
        assert box.loaded[0].evicted == ((ENGINE, "a"),)


async def test_a_forecast_that_wavers_moves_little() -> None:
    """Within the gain nothing moves; however far it swings, once in ten minutes at the most."""
    async with house({"a": 8, "b": 8}, 10, resident="a") as box:
        for _ in range(60):
            for box.chances in ({"a": 0.3, "b": 0.5}, {"a": 0.5, "b": 0.3}):
                await box.pass_ms(60_000)
        assert box.loads == ""
        for _ in range(60):
            for box.chances in ({"a": 0.1, "b": 0.9}, {"a": 0.9, "b": 0.1}):
                await box.pass_ms(60_000)
        assert 2 <= len(box.loads) <= 120 * 60_000 // EVICT_EVERY_MS + 1


async def test_who_needs_the_room_of_a_preloaded_model_has_it_at_once() -> None:
    """It has no hold and has not been used, so it goes before all others and nobody waits longer than for any load."""
    async with house({"a": 4, "b": 4, "c": 4}, 8, resident="a") as box:
        box.ask("a")
        await box.pass_ms(1_000)
        box.chances = {"a": 0.1, "b": 0.9}
        await box.pass_ms(IDLE_MS_MAX + LOAD_MS)
        assert box.loads == "b"
        box.ask("c")
        await box.pass_ms(UNLOAD_MS + LOAD_MS)
        assert box.waits_ms == [0, UNLOAD_MS + LOAD_MS]
        assert box.engine.unloads == ["b"]


async def test_whoever_wants_another_model_breaks_the_load_off() -> None:
    """They wait for their own load, and for the taking out of the half one."""
    async with house({"a": 8, "b": 8}, 10, load_ms=60_000) as box:
        box.chances = {"a": 0.9}
        box.engine.load_ms["b"] = LOAD_MS
        await box.pass_ms(IDLE_MS_MAX + 20_000)
        assert box.loads == "a"
        box.ask("b", answer_ms=100)
        await box.pass_ms(WATCH_EVERY_MS + UNLOAD_MS + LOAD_MS)
        assert box.waits_ms[0] <= WATCH_EVERY_MS + UNLOAD_MS + LOAD_MS
        assert box.engine.unloads == ["a"]
        assert box.loaded[0].caused_by == "ann"


async def test_whoever_uses_a_model_that_is_there_enters_at_once_and_breaks_the_load_off() -> None:
    """The next attempt is made later, then later still."""
    async with house({"a": 4, "b": 4}, 10, resident="b", load_ms=60_000) as box:
        box.chances = {"a": 0.9}
        begins = []
        for attempt in range(3):
            while len(box.engine.loads) == attempt:
                await box.pass_ms(1_000)
            begins.append(box.clock.monotonic_ms())
            await box.pass_ms(10_000)
            box.ask("b", answer_ms=100)
            await box.pass_ms(WATCH_EVERY_MS + UNLOAD_MS)
            assert box.engine.unloads == ["a"] * (attempt + 1)
            assert box.engine.moving == ""
        assert box.waits_ms == [0, 0, 0]
        pauses = [later - earlier for earlier, later in pairwise(begins)]
        assert pauses[0] >= REST_MS_MIN
        assert pauses[1] >= 2 * REST_MS_MIN


async def test_another_replicas_request_breaks_the_load_off() -> None:
    """The ledger is asked while the load goes on."""
    async with house({"a": 4}, 10, load_ms=60_000) as box:
        box.chances = {"a": 0.9}
        await box.pass_ms(IDLE_MS_MAX + 10_000)
        assert box.engine.moving == "a"
        box.load[ENGINE] = (1, 0)
        await box.pass_ms(WATCH_EVERY_MS + UNLOAD_MS)
        assert box.engine.unloads == ["a"]
        assert box.engine.resident == set()
        assert counted() == {Outcome.BROKEN_OFF: 1}


async def test_whoever_wants_the_model_that_is_coming_waits_for_the_rest_only() -> None:
    """From then on it is a load like any other, and others wait for it; still nobody is charged."""
    async with house({"a": 4, "b": 4}, 10, load_ms=60_000) as box:
        box.chances = {"a": 0.9}
        await box.pass_ms(IDLE_MS_MAX)
        (began_ms, _), *_ = box.engine.loads
        await box.pass_ms(began_ms + 40_000 - box.clock.monotonic_ms())
        box.ask("a", answer_ms=100)
        await box.pass_ms(1_000)
        box.ask("b")
        await box.pass_ms(19_000)
        assert box.waits_ms == [20_000]
        assert box.loaded[0].caused_by == NOBODY
        assert box.engine.unloads == []
        assert counted() == {Outcome.LOADED: 1, USED: 1}


async def test_whoever_wants_what_is_going_stops_it() -> None:
    """While a lesser model is unloaded somebody asks for it: it comes back, and the other is not loaded."""
    async with house({"a": 8, "b": 8}, 10, resident="b") as box:
        box.chances = {"a": 0.9}
        while box.engine.moving != "b":
            await box.pass_ms(10)
        box.ask("b")
        await box.pass_ms(UNLOAD_MS + LOAD_MS)
        assert box.loads == "b"
        assert len(box.waits_ms) == 1
        assert box.faults == []


async def test_what_fails_is_left_alone_for_an_hour_and_refused_to_nobody() -> None:
    """Somebody who asks meanwhile has an attempt of their own at once."""
    async with house({"a": 4}, 10) as box:
        box.chances = {"a": 0.9}
        box.engine.faults["a"] = 1
        await box.pass_ms(IDLE_MS_MAX + LOAD_MS + UNLOAD_MS)
        assert box.loads == "a"
        assert box.engine.unloads == ["a"]
        assert counted() == {Outcome.FAILED: 1}
        await box.pass_ms(FAILED_REST_MS - IDLE_MS_MAX - UNLOAD_MS)
        assert box.loads == "a"
        box.engine.faults["a"] = 1
        await box.pass_ms(2 * IDLE_MS_MAX + LOAD_MS + UNLOAD_MS)
        assert box.loads == "aa"
        box.ask("a")
        await box.pass_ms(LOAD_MS)
        assert box.waits_ms == [LOAD_MS]
        assert box.faults == []


async def test_an_engine_that_leaves_in_the_middle_ends_it() -> None:
    """It is not asked for anything more, and the others go on."""
    async with house({"a": 4}, 10, load_ms=60_000) as box:
        box.chances = {"a": 0.9}
        await box.pass_ms(IDLE_MS_MAX + 10_000)
        box.boxes.leave(ENGINE)
        await box.pass_ms(600_000)
        assert box.engine.unloads == []
        assert box.loads == "a"


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 60_000), st.sampled_from("abcd"), st.integers(0, 20_000), st.none() | st.integers(0, 30_000)
    ),
    min_size=1,
    max_size=15,
)


@settings(max_examples=40, deadline=None)
@given(
    requests=REQUESTS,
    sizes=st.lists(st.integers(1, 10), min_size=4, max_size=4),
    chances=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    faults=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2)),
)
async def test_whatever_comes_the_promises_hold(
    requests: list[tuple[int, str, int, int | None]],
    sizes: list[int],
    chances: list[float],
    faults: dict[str, int],
) -> None:
    """Never two moves at once, nothing busy unloaded, never over budget (the engine looks); everybody gets an end."""
    async with house(dict(zip("abcd", sizes, strict=True)), 10) as box:
        box.chances = dict(zip("abcd", chances, strict=True))
        box.engine.faults.update(faults)
        for pause_ms, model, answer_ms, leaves_ms in requests:
            await box.pass_ms(pause_ms)
            box.ask(model, answer_ms)
            if leaves_ms is not None:
                task = box.tasks[-1]
                await box.pass_ms(leaves_ms)
                task.cancel()
        await box.pass_ms(BOUNDS.wait_ms_max + 30_000)
        assert all(task.done() for task in box.tasks)
        assert {error.code for error in box.faults} <= {"load_failed"}
        assert [placed.in_use + placed.waiting for placed in box.boxes.view()] == [0] * 4


PLACES = st.lists(
    st.builds(
        Place,
        engine=st.sampled_from(("e", "f")),
        model=st.sampled_from("abcdefgh"),
        state=st.sampled_from(State),
        size_bytes=st.integers(0, 10),
        in_use=st.integers(0, 1),
        is_moving=st.booleans(),
        is_used_elsewhere=st.booleans(),
        held_until_ms=st.sampled_from((0, 2 * KEPT_MS)),
        used_at_ms=st.sampled_from((0, KEPT_MS)),
        reload_ms=st.integers(1, 10_000),
    ),
    max_size=8,
    unique_by=lambda place: (place.engine, place.model),
)


@given(
    places=PLACES,
    chances=st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1)),
    room=st.integers(0, 30) | st.just(UNBOUNDED_BYTES),
    may_evict=st.booleans(),
)
def test_a_choice_is_worth_it_and_hurts_nobody(
    places: list[Place], chances: dict[str, float], room: int, *, may_evict: bool
) -> None:
    """It comes from outside, fits, and what goes is idle, unheld, much less likely, and worth less in all."""
    foresight = Foresight(chances, may_evict=may_evict)
    now_ms = KEPT_MS + 1
    choice = choose(places, foresight, lambda _: room, now_ms=now_ms, hold_ms=BOUNDS.hold_ms_min)
    if choice is None:
        return
    residents = [place for place in places if place.is_resident]
    assert choice.place.model not in {place.model for place in residents}
    assert chances[choice.place.model] >= CHANCE_MIN
    if room == UNBOUNDED_BYTES or not choice.place.size_bytes:
        assert not residents
        return
    staying = [place for place in residents if place not in choice.evict]
    assert choice.place.size_bytes + sum(place.size_bytes for place in staying) <= room
    assert may_evict or not choice.evict
    for place in choice.evict:
        assert not place.in_use
        assert not place.is_used_elsewhere
        assert not place.is_moving
        assert place.held_until_ms <= now_ms
        assert now_ms - place.used_at_ms >= KEPT_MS
        assert GAIN_MIN * chances.get(place.model, 0) <= chances[choice.place.model]
    lost = sum(foresight.worth_ms(place) for place in choice.evict)
    assert GAIN_MIN * lost <= foresight.worth_ms(choice.place)


async def test_one_turn_in_the_house_and_it_is_that_of_calibrations(database_url: str) -> None:
    """Postgres lends it to one at a time, by the number that calibrations use; it comes back with its block."""
    database = Database(database_url, connections_max=3)
    async with only_one(database) as is_ours:
        assert is_ours
        async with only_one(database) as is_theirs:
            assert not is_theirs
    async with only_one(database) as is_ours:
        assert is_ours
    assert ADVISORY_LOCK == 7_010_011
    await database.close()
