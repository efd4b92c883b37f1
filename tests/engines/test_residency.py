"""What is in memory: one load for all, nobody evicted while busy, turns without thrashing; all in virtual time."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engines.eviction import make_room
from server.engines.places import GIB, Bounds, Load, Place, State
from server.engines.residency import Residency
from server.errors import Conflict, EngineFailed, NotFound, Unavailable, WirthforgeError
from tests.clocks import FakeClock

ENGINE = "box"
BOUNDS = Bounds(
    hold_ms_min=30_000, wait_ms_max=200_000, load_ms_max=60_000, backoff_ms_min=5_000, backoff_ms_max=40_000
)
# More turns of the loop than any chain of tasks here is long.
TURNS = 25
UNLOAD_MS = 100


@dataclass
class VirtualEngine:
    """An engine whose memory is a number, and whose loads take virtual time. It notices every broken promise.

    Attributes:
        load_ms: by model; also what it can load at all.
        faults: how many of the next loads of a model fail.
        states_ms: how old what it tells is when it arrives.
        running: requests by model, as the tests count them.
    """

    clock: FakeClock
    sizes: dict[str, int]
    load_ms: dict[str, int]
    budget_bytes: int
    rests_in: State = State.COLD
    states_ms: int = 0
    resident: set[str] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)
    running: Counter[str] = field(default_factory=Counter)
    moving: str = ""
    used_by_others: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)
    refusals: int = 0
    is_deaf: bool = False
    loads: list[tuple[int, str]] = field(default_factory=list)
    unloads: list[str] = field(default_factory=list)

    async def states(self) -> dict[str, State]:
        """See `Driver`."""
        if self.is_deaf:
            raise EngineFailed("It is away.")
        here = {model: State.BUSY if model in self.used_by_others else State.RESIDENT for model in self.resident}
        told = {model: here.get(model, self.rests_in) for model in self.load_ms}
        if self.states_ms:
            await self.clock.sleep_ms(self.states_ms)
        return told

    async def load(self, model: str) -> None:
        """See `Driver`."""
        if model not in self.load_ms:
            raise NotFound("No such model.")
        self._begin(model)
        assert model not in self.resident
        self.loads.append((self.clock.monotonic_ms(), model))
        try:
            await self.clock.sleep_ms(self.load_ms[model])
        finally:
            self.moving = ""
        if self.faults[model]:
            self.faults[model] -= 1
            raise EngineFailed("It is broken.")
        self.resident.add(model)
        assert sum(self.sizes[each] for each in self.resident) <= self.budget_bytes, "over budget"

    async def unload(self, model: str) -> None:
        """See `Driver`."""
        self._begin(model)
        await self.clock.sleep_ms(UNLOAD_MS)
        self.moving = ""
        if model in self.stuck:
            self.refusals += 1
            raise EngineFailed("It does not let go.")
        assert not self.running[model], "unloaded while busy"
        self.resident.discard(model)
        self.unloads.append(model)

    def _begin(self, model: str) -> None:
        assert not self.moving, "two moves at a time"
        assert not self.running[model], "moved while busy"
        self.moving = model


@dataclass
class World:
    """A box, its clock, and what happened."""

    clock: FakeClock
    engine: VirtualEngine
    residency: Residency
    loaded: list[Load]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    waits_ms: dict[str, list[int]] = field(default_factory=dict)
    faults: list[WirthforgeError] = field(default_factory=list)

    def ask(self, model: str, who: str = "ann", answer_ms: int = 1_000) -> None:
        """A request in the background, the last of `tasks`."""
        self.tasks.append(asyncio.ensure_future(self.request(model, who, answer_ms)))

    async def request(self, model: str, who: str = "ann", answer_ms: int = 1_000) -> None:
        """One request, and how long it waited."""
        began_ms = self.clock.monotonic_ms()
        try:
            async with self.residency.use(ENGINE, model, caused_by=who):
                assert model in self.engine.resident
                self.waits_ms.setdefault(who, []).append(self.clock.monotonic_ms() - began_ms)
                self.engine.running[model] += 1
                try:
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


async def settle() -> None:
    """Let every task go as far as it can without time."""
    loop = asyncio.get_running_loop()
    for _ in range(TURNS):
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn


@asynccontextmanager
async def world(
    sizes: dict[str, int], budget_bytes: int, *, load_ms: int = 4_000, bounds: Bounds = BOUNDS
) -> AsyncIterator[World]:
    """A box that runs."""
    clock = FakeClock()
    clock.advance(timedelta(hours=1))
    engine = VirtualEngine(clock, sizes, dict.fromkeys(sizes, load_ms), budget_bytes)
    loaded: list[Load] = []
    residency = Residency(
        {ENGINE: engine},
        size_bytes=lambda _engine, model: sizes.get(model, 1),
        budget_bytes=lambda: engine.budget_bytes,
        clock=clock,
        on_load=loaded.append,
        bounds=bounds,
    )
    box = World(clock, engine, residency, loaded)
    running = asyncio.ensure_future(residency.run())
    try:
        yield box
        assert not running.done(), running
    finally:
        for task in [*box.tasks, running]:
            task.cancel()
        await asyncio.wait([*box.tasks, running])
    for task in box.tasks:
        assert task.cancelled() or task.exception() is None, task.exception()


async def test_many_requests_for_a_cold_model_load_it_once() -> None:
    """Twenty people wait for one load, and the first of them has caused it."""
    async with world({"a": 10}, 10) as box:
        for number in range(20):
            box.ask("a", f"user{number}")
        await box.pass_ms(3_999)
        assert box.waits_ms == {}
        await box.pass_ms(1)
        assert len(box.waits_ms) == 20
        assert box.loaded == [Load(engine=ENGINE, model="a", caused_by="user0", took_ms=4_000)]


async def test_a_resident_model_is_entered_at_once() -> None:
    """No engine is asked, and nothing waits."""
    async with world({"a": 10}, 10) as box:
        box.ask("a")
        await box.pass_ms(6_000)
        box.engine.is_deaf = True
        async with box.residency.use(ENGINE, "a", caused_by="ann") as load:
            assert load is None
        assert len(box.engine.loads) == 1


async def test_an_engine_without_a_driver_is_entered_at_once() -> None:
    """What cannot be loaded is not waited for."""
    async with world({}, 10) as box, box.residency.use("elsewhere", "m", caused_by="ann") as load:
        assert load is None


async def test_who_leaves_while_it_loads_spoils_nothing() -> None:
    """The first to ask goes away; the other gets the model from the same load, and the one who caused it is told."""
    async with world({"a": 10}, 10) as box:
        box.ask("a", "ann")
        box.ask("a", "bob")
        await box.pass_ms(2_000)
        box.tasks[0].cancel()
        await box.pass_ms(2_000)
        assert box.waits_ms == {"bob": [4_000]}
        assert [(load.caused_by, load.took_ms) for load in box.loaded] == [("ann", 4_000)]
        await box.pass_ms(5_000)
        assert [placed.in_use for placed in box.residency.view()] == [0]


async def test_who_leaves_in_the_moment_of_being_let_in_is_not_counted_for_ever() -> None:
    """A request that was let in and is cancelled before it noticed leaves nothing in use."""
    async with world({"a": 10}, 10) as box:

        def leave(_load: Load) -> None:
            box.tasks[0].cancel()

        box.residency._on_load = leave
        box.ask("a")
        await box.pass_ms(6_000)
        assert box.tasks[0].cancelled()
        assert [placed.in_use for placed in box.residency.view()] == [0]


async def test_what_nobody_wants_any_more_is_not_loaded() -> None:
    """A request that leaves before its turn costs nothing."""
    async with world({"a": 10, "b": 10}, 10) as box:
        box.ask("a", answer_ms=10_000)
        await box.pass_ms(5_000)
        box.ask("b", "bob")
        await box.pass_ms(5_000)
        box.tasks[-1].cancel()
        await box.pass_ms(100_000)
        assert [load.model for load in box.loaded] == ["a"]
        assert box.engine.unloads == []


async def test_models_that_fit_together_stay_together() -> None:
    """Nothing is unloaded while there is room."""
    async with world({"a": 4, "b": 6}, 10) as box:
        for model in "abab":
            box.ask(model)
            await box.pass_ms(60_000)
        assert box.engine.unloads == []
        assert len(box.loaded) == 2


async def test_a_busy_model_is_not_evicted() -> None:
    """Whoever needs its room waits until its answer ends, however long after the hold that is."""
    async with world({"a": 10, "b": 10}, 10) as box:
        box.ask("a", answer_ms=100_000)
        await box.pass_ms(5_000)
        box.ask("b", "bob")
        await box.pass_ms(94_000)
        assert box.engine.unloads == []
        await box.pass_ms(10_000)
        assert [load.model for load in box.loaded] == ["a", "b"]
        assert box.loaded[1].evicted == ((ENGINE, "a"),)


async def test_who_pauses_keeps_the_model_for_one_reload() -> None:
    """An idle model goes when it has been idle for as long as loading it took, and not before."""
    async with world({"a": 10, "b": 10}, 10) as box:
        box.ask("a", answer_ms=1_000)
        await box.pass_ms(5_000)
        box.ask("b", "bob")
        await box.pass_ms(3_999)
        assert box.engine.unloads == []
        await box.pass_ms(101)
        assert box.engine.unloads == ["a"]


async def test_a_long_line_of_requests_yields_after_the_hold() -> None:
    """A model that is never idle gives way after its hold: what runs ends, who comes later waits for its turn."""
    async with world({"a": 10, "b": 10}, 10) as box:
        for second in range(60):
            box.ask("a", answer_ms=2_000)
            if second == 10:
                box.ask("b", "bob")
            await box.pass_ms(1_000)
        # The hold, then at most one answer, then unload and load; and `a` is back once `b` has been idle for a while.
        assert box.waits_ms["bob"][0] <= 30_000 + 2_000 + UNLOAD_MS + 4_000
        assert [load.model for load in box.loaded] == ["a", "b", "a"]


async def test_a_failed_load_fails_for_all_and_may_be_tried_later() -> None:
    """Everybody gets the error; during the back-off nobody tries; then it works, and the back-off is forgotten."""
    async with world({"a": 10}, 10) as box:
        box.engine.faults["a"] = 1
        for _ in range(5):
            box.ask("a")
        await box.pass_ms(4_200)
        assert [error.code for error in box.faults] == ["load_failed"] * 5
        with pytest.raises(Unavailable) as caught:
            async with box.residency.use(ENGINE, "a", caused_by="ann"):
                raise AssertionError
        assert caught.value.retry_after_s == 5
        assert len(box.engine.loads) == 1
        await box.pass_ms(5_000)
        box.ask("a")
        await box.pass_ms(5_000)
        assert len(box.loaded) == 1
        assert box.waits_ms["ann"] == [4_000]


async def test_the_back_off_doubles_up_to_its_bound() -> None:
    """A model that is broken for good is tried less and less often."""
    async with world({"a": 10}, 10) as box:
        box.engine.faults["a"] = 1_000
        waits: list[int | None] = []
        for _ in range(6):
            box.ask("a")
            await box.pass_ms(4_000)
            waits.append(box.faults[-1].retry_after_s)
            await box.pass_ms(1_000 * (waits[-1] or 0))
        assert waits == [5, 10, 20, 40, 40, 40]


async def test_a_load_that_hangs_is_given_up() -> None:
    """It fails at its bound, and the engine is told to let go of what it has."""
    async with world({"a": 10}, 10, load_ms=1_000_000) as box:
        box.ask("a")
        await box.pass_ms(60_200)
        assert [error.code for error in box.faults] == ["load_failed"]
        assert box.engine.unloads == ["a"]


async def test_nobody_waits_for_ever() -> None:
    """A request that gets no turn is told so, with a time after which to try again."""
    async with world({"a": 10, "b": 10}, 10) as box:
        box.ask("a", answer_ms=1_000_000)
        await box.pass_ms(5_000)
        box.ask("b", "bob")
        box.ask("a", "cid")
        await box.pass_ms(40_000)
        # The hold is over and `a` yields: nobody enters it any more.
        box.ask("a", "dan")
        await box.pass_ms(160_000)
        assert [(error.code, error.retry_after_s) for error in box.faults] == [("loading_timeout", 30)]
        # Nobody waits for its room now, so it is open again.
        assert box.waits_ms["cid"] == [0]
        assert box.waits_ms["dan"] == [160_000]


async def test_the_line_has_an_end() -> None:
    """More than `waiting_max` do not wait at all."""
    async with world({"a": 10}, 10, bounds=Bounds(waiting_max=3)) as box:
        for _ in range(5):
            box.ask("a")
        await box.pass_ms(1)
        assert [error.code for error in box.faults] == ["loading_queue_full"] * 2


async def test_a_model_larger_than_the_box_is_refused_at_once() -> None:
    """Nothing is evicted for what cannot fit."""
    async with world({"a": 10, "huge": 11}, 10) as box:
        box.ask("a")
        await box.pass_ms(60_000)
        box.ask("huge")
        await box.pass_ms(1)
        assert [error.code for error in box.faults] == ["model_too_large"]
        assert box.engine.resident == {"a"}


async def test_a_model_that_does_not_exist_costs_nobody_anything() -> None:
    """An unknown name evicts nothing, and is not remembered."""
    async with world({"a": 10}, 10) as box:
        box.ask("a")
        await box.pass_ms(60_000)
        for number in range(20):
            box.ask(f"nonsense{number}")
        await box.pass_ms(10_000)
        assert {error.code for error in box.faults} == {"model_not_found"}
        assert box.engine.resident == {"a"}
        await box.residency.refresh()
        assert [placed.model for placed in box.residency.view()] == ["a"]


async def test_what_others_use_is_left_alone() -> None:
    """A model that the engine calls busy stays, and is looked at again."""
    async with world({"a": 10, "b": 10}, 10) as box:
        box.engine.resident.add("a")
        box.engine.used_by_others.add("a")
        box.ask("b")
        await box.pass_ms(50_000)
        assert box.engine.unloads == []
        box.engine.used_by_others.clear()
        await box.pass_ms(6_000)
        assert box.engine.resident == {"b"}


async def test_what_the_engine_has_unloaded_itself_is_loaded_again() -> None:
    """The engine is believed about what nobody here uses."""
    async with world({"a": 10}, 10) as box:
        box.ask("a")
        await box.pass_ms(6_000)
        box.engine.resident.clear()
        await box.pass_ms(10_000)
        box.ask("a")
        await box.pass_ms(6_000)
        assert len(box.loaded) == 2


async def test_what_an_engine_has_is_known_before_anybody_asks() -> None:
    """At the start, and when an engine joins, its models are looked at; an engine that is away changes nothing."""
    async with world({"a": 5, "b": 5}, 10) as box:
        box.engine.resident.add("b")
        await box.pass_ms(1)
        states = {placed.model: placed.state for placed in box.residency.view()}
        assert states == {"a": State.COLD, "b": State.RESIDENT}
        box.engine.is_deaf = True
        await box.pass_ms(30_000)
        assert {placed.model: placed.state for placed in box.residency.view()} == states


async def test_what_was_told_before_a_load_ended_is_not_believed_after() -> None:
    """An answer that was on its way while the model came says cold, and is dropped."""
    async with world({"a": 10}, 10) as box:
        box.engine.states_ms = 1_000
        box.ask("a", answer_ms=100)
        await box.pass_ms(4_500)
        asking = asyncio.ensure_future(box.residency.refresh())
        await box.pass_ms(2_000)
        await asking
        assert [(placed.state, placed.in_use) for placed in box.residency.view()] == [(State.RESIDENT, 0)]


async def test_nothing_more_is_evicted_once_nobody_wants_the_room() -> None:
    """Who needed two places leaves while the first is given up; the second stays."""
    async with world({"a": 5, "b": 5, "c": 10}, 10) as box:
        box.ask("a")
        await box.pass_ms(6_000)
        box.ask("b")
        await box.pass_ms(60_000)
        box.ask("c")
        await box.pass_ms(UNLOAD_MS // 2)
        box.tasks[-1].cancel()
        await box.pass_ms(10_000)
        assert box.engine.unloads == ["a"]
        assert box.engine.resident == {"b"}


async def test_what_runs_on_a_model_that_was_lost_ends_first() -> None:
    """The engine has lost a model that is in use here: nothing is loaded over the requests that still run."""
    async with world({"a": 10}, 10) as box:
        box.ask("a", answer_ms=20_000)
        await box.pass_ms(5_000)
        box.engine.resident.clear()
        await box.residency.refresh()
        async with box.residency.use(ENGINE, "a", caused_by="bob") as load:
            assert load is None
        await box.pass_ms(20_000)
        await box.residency.refresh()
        assert [placed.state for placed in box.residency.view()] == [State.COLD]
        assert len(box.engine.loads) == 1


async def test_what_does_not_let_go_is_tried_again_later() -> None:
    """A model that cannot be unloaded is left alone for a while, stays open, and does not stop anybody for ever."""
    async with world({"a": 10, "b": 10}, 10) as box:
        box.ask("a")
        await box.pass_ms(40_000)
        box.engine.stuck.add("a")
        box.ask("b", "bob")
        await box.pass_ms(14_000)
        assert box.engine.refusals == 3
        box.ask("a", "cid")
        await box.pass_ms(500)
        assert box.waits_ms["cid"] == [0]
        box.engine.stuck.clear()
        await box.pass_ms(15_000)
        assert box.engine.resident == {"b"}


async def test_what_is_dear_and_never_used_goes_in_the_end() -> None:
    """A model that takes long to load outlasts others for a while, and not for ever."""
    async with world(dict.fromkeys("abcd", 5), 10) as box:
        box.engine.load_ms["a"] = 20_000
        for model in "abcdbcdbcd":
            box.ask(model)
            await box.pass_ms(60_000)
        assert box.engine.unloads[:4] == ["b", "c", "d", "b"]
        assert "a" in box.engine.unloads


async def test_an_admin_unloads_what_is_idle() -> None:
    """Idle goes, busy is a conflict, unknown is not found."""
    async with world({"a": 10}, 10) as box:
        box.ask("a", answer_ms=10_000)
        await box.pass_ms(5_000)
        with pytest.raises(Conflict):
            await box.residency.unload(ENGINE, "a")
        with pytest.raises(NotFound):
            await box.residency.unload(ENGINE, "b")
        await box.pass_ms(10_000)
        unloading = asyncio.ensure_future(box.residency.unload(ENGINE, "a"))
        await box.pass_ms(100)
        await unloading
        assert [placed.state for placed in box.residency.view()] == [State.COLD]


async def test_an_engine_that_leaves_leaves_nobody_waiting() -> None:
    """Who waits for a model of an engine that is removed is told so."""
    async with world({"a": 10, "b": 10}, 10) as box:
        box.ask("a", answer_ms=50_000)
        await box.pass_ms(5_000)
        box.ask("b")
        await box.pass_ms(1_000)
        box.residency.leave(ENGINE)
        await box.pass_ms(100_000)
        assert [error.code for error in box.faults] == ["engine_removed"]
        assert box.residency.view() == []


@pytest.mark.parametrize("pause_ms", [0, 500, 3_000, 20_000])
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_two_people_with_two_models_do_not_thrash(seed: int, pause_ms: int) -> None:
    """Two models that do not fit together: loads are bounded, both get on, and nobody waits longer than a turn."""
    chance = random.Random(seed)  # noqa: S311 (a simulation)
    load_ms, answer_ms_max, minutes = 4_000, 6_000, 20
    async with world({"a": 10, "b": 10}, 10, load_ms=load_ms) as box:

        async def person(model: str, who: str) -> None:
            while True:
                await box.request(model, who, chance.randint(200, answer_ms_max))
                await box.clock.sleep_ms(chance.randint(pause_ms // 2, pause_ms) + 1)

        # Two requests at a time each, so that with short pauses a model is never idle.
        for _ in range(2):
            box.tasks += [asyncio.ensure_future(person("a", "ann")), asyncio.ensure_future(person("b", "bob"))]
        await box.pass_ms(minutes * 60_000)
    assert box.faults == []
    wait_ms_max = BOUNDS.hold_ms_min + 2 * (answer_ms_max + UNLOAD_MS + load_ms)
    assert max(max(waits) for waits in box.waits_ms.values()) <= wait_ms_max
    # A load is followed by a hold, or by as much idleness as it took.
    assert len(box.loaded) <= minutes * 60_000 / (2 * load_ms) + 1
    if pause_ms < 3_000:
        assert len(box.loaded) <= minutes * 60_000 / (BOUNDS.hold_ms_min + load_ms) + 1
    assert min(len(waits) for waits in box.waits_ms.values()) >= minutes * 2
    causes = Counter(load.caused_by for load in box.loaded)
    assert abs(causes["ann"] - causes["bob"]) <= 1


async def test_three_models_in_room_for_one_take_turns() -> None:
    """Nobody starves, and nobody has two turns in somebody else's one."""
    async with world({"a": 10, "b": 10, "c": 10}, 10) as box:

        async def person(model: str) -> None:
            while True:
                await box.request(model, model, 2_000)

        box.tasks += [asyncio.ensure_future(person(model)) for model in "abc" for _ in range(3)]
        await box.pass_ms(15 * 60_000)
    order = "".join(load.model for load in box.loaded)
    assert order == ("abc" * 10)[: len(order)]
    assert max(max(waits) for waits in box.waits_ms.values()) <= 2 * 30_000 + 3 * (2_000 + UNLOAD_MS + 4_000)


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 40_000),  # after the one before, ms
        st.sampled_from("abcd"),
        st.integers(0, 30_000),  # the answer, ms
        st.none() | st.integers(0, 50_000),  # when it leaves, ms
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(
    requests=REQUESTS,
    sizes=st.lists(st.integers(1, 10), min_size=4, max_size=4),
    faults=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3)),
    others=st.lists(st.sampled_from("abcd"), max_size=4),
)
async def test_whatever_comes_the_promises_hold(
    requests: list[tuple[int, str, int, int | None]],
    sizes: list[int],
    faults: dict[str, int],
    others: list[str],
) -> None:
    """Never over budget, never unloaded while busy, one move at a time (the engine asserts it), and all ends."""
    async with world(dict(zip("abcd", sizes, strict=True)), 12) as box:
        box.engine.faults.update(faults)
        leaving: list[tuple[int, asyncio.Task[None]]] = []
        for after_ms, model, answer_ms, leaves_ms in requests:
            await box.pass_ms(after_ms)
            if others and not box.engine.running[others[-1]] and not box.engine.moving:
                # The engine unloads on its own, and the next probe tells.
                box.engine.resident.discard(others.pop())
                await box.residency.refresh()
            box.ask(model, answer_ms=answer_ms)
            if leaves_ms is not None:
                leaving.append((box.clock.monotonic_ms() + leaves_ms, box.tasks[-1]))
            for at_ms, each in leaving:
                if at_ms <= box.clock.monotonic_ms():
                    each.cancel()
        await box.pass_ms(BOUNDS.wait_ms_max + BOUNDS.load_ms_max + 30_000)
        assert all(task.done() for task in box.tasks)
        assert {error.code for error in box.faults} <= {"load_failed", "loading_timeout"}
        assert all(not placed.in_use and not placed.waiting for placed in box.residency.view())
        if not faults:
            assert box.faults == []


def place(model: str, size: int, **known: int | bool) -> Place:
    """One that is resident, idle, and past its hold."""
    made = Place(ENGINE, model, State.RESIDENT, size)
    for name, value in known.items():
        setattr(made, name, value)
    return made


Residents = Callable[[], list[Place]]


def test_what_is_cheap_and_large_and_long_unused_goes_first() -> None:
    """GreedyDual-Size: a slow load, a small size and a recent use each keep a model in memory."""
    slow, fast = place("slow", GIB, reload_ms=9_000), place("fast", GIB, reload_ms=1_000)
    small, large = place("small", GIB, reload_ms=5_000), place("large", 4 * GIB, reload_ms=5_000)
    for each in (slow, fast, small, large):
        each.touch(0, age=0)
    assert sorted((slow, fast, small, large), key=lambda each: each.score) == [fast, large, small, slow]
    plan = make_room(GIB, [slow, small, fast], budget_bytes=3 * GIB, now_ms=9_001, hold_ms=30_000)
    assert plan.evict == (fast,)
    # Once something of score 5000 has gone, a use of the fast one puts it before the small one, which was not used.
    fast.touch(1, age=5_000)
    assert fast.score > small.score


def test_who_has_begun_to_yield_goes_on() -> None:
    """Between two that are busy, the one that already yields is chosen, whatever the scores have become."""
    one, other = place("one", 5, in_use=1, score=9, is_yielding=True), place("other", 5, in_use=1, score=1)
    assert make_room(5, [other, one], budget_bytes=10, now_ms=1, hold_ms=1).drain == (one,)


@given(
    needed=st.integers(0, 40),
    budget=st.integers(0, 60),
    known=st.lists(
        st.tuples(st.integers(1, 20), st.integers(0, 2), st.integers(0, 200), st.integers(0, 200), st.integers(0, 99)),
        max_size=6,
    ),
)
def test_a_plan_makes_room_and_takes_no_more_than_it_needs(
    needed: int, budget: int, known: list[tuple[int, int, int, int, int]]
) -> None:
    """What goes is enough; without any one of it, it would not be; and nobody held or busy is evicted."""
    residents = [
        place(str(number), size, in_use=in_use, held_until_ms=held, used_at_ms=used, score=score, reload_ms=50)
        for number, (size, in_use, held, used, score) in enumerate(known)
    ]
    plan = make_room(needed, residents, budget_bytes=budget, now_ms=100, hold_ms=80)
    gone = [*plan.evict, *plan.drain]
    missing = needed + sum(each.size_bytes for each in residents) - budget
    if not plan.is_possible:
        assert not gone
        allowed = [
            each for each in residents if each.held_until_ms <= 100 or (not each.in_use and each.used_at_ms <= 50)
        ]
        assert sum(each.size_bytes for each in allowed) < missing
        return
    assert sum(each.size_bytes for each in gone) >= missing
    assert all(sum(each.size_bytes for each in gone if each is not left) < missing for left in gone)
    assert all(not each.in_use and (each.held_until_ms <= 100 or each.used_at_ms <= 50) for each in plan.evict)
    assert all(each.in_use and each.held_until_ms <= 100 for each in plan.drain)
