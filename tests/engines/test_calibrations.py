"""Calibrations that are taken by themselves, kept, and in force."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text, update
from sqlalchemy.ext.asyncio import create_async_engine

from quotas.cost import Cost
from server.clock import SystemClock, uuid7
from server.db.migrate import MIGRATIONS, migrate
from server.db.models import CalibrationRow, Usage
from server.db.session import Database, async_url
from server.embedded.llama import Llama
from server.engines.calibrating import ADVISORY_LOCK, REST_MS_MIN, WATCH_EVERY_MS, Calibrating, Interrupted, InUse
from server.engines.calibrations import FAILURE_HOLDS, Calibrations
from server.engines.ollama import Ollama
from server.engines.places import Load, Placed, State
from server.engines.pool import Pool
from server.engines.residents import STAYS, Residents
from server.errors import Conflict, NotFound, Unavailable
from tests.conftest import adapter
from tests.engines.virtual import Machine, VirtualEngine
from tests.stand_ins import ollama_engine

PREFILL_US, STEP_US = 100, 2_000


@dataclass
class Replica:
    """One of the servers of a box, as far as calibrations go."""

    machine: Machine
    engine: VirtualEngine
    pool: Pool
    store: Calibrations
    calibrating: Calibrating
    load: list[int]


class NothingMoves:
    """The box's models, which stay where they are (`places.Loader`)."""

    def __init__(self, house: "House") -> None:
        self._house = house

    def use(self, engine: str, model: str, *, caused_by: str) -> AbstractAsyncContextManager[Load | None]:
        """Nobody does."""
        raise AssertionError((engine, model, caused_by))

    def view(self) -> list[Placed]:
        """As the test says."""
        return self._house.placed


@dataclass
class House:
    """A box of which tests say what it is made of, and what its ledger tells."""

    database: Database
    machine: Machine = field(default_factory=lambda: Machine(lambda running: STEP_US * max(running, 2) // 2))
    hardware: str = "2 x Test GPU"
    changes: int = 0
    placed: list[Placed] = field(default_factory=list)

    async def replica(self, server_version: str = "1") -> Replica:
        """One with an engine of its own adapter."""
        engine = VirtualEngine(self.machine, prefill_us=PREFILL_US)
        pool = Pool([engine], clock=self.machine, on_probed=lambda _: None, on_pressure=lambda *_: None)
        await pool.probe_all()
        boxes = NothingMoves(self)
        store = Calibrations(
            self.database,
            self.machine,
            hardware=lambda: self.hardware,
            version=lambda name: engine.version if pool.engine(name) is not None else None,
            server_version=server_version,
            on_change=self._changed,
        )
        load = [0, 0]

        async def loaded(_: str) -> tuple[int, int]:
            return load[0], load[1]

        numbers = count()
        calibrating = Calibrating(
            pool=pool,
            residency=boxes,
            residents=Residents(pool, boxes, self.database, self.machine, lambda _: False),
            store=store,
            database=self.database,
            clock=self.machine,
            load=loaded,
            slots=lambda _: None,
            nonce=lambda: f"nonce-{next(numbers)}",
        )
        return Replica(self.machine, engine, pool, store, calibrating, load)

    def _changed(self) -> None:
        self.changes += 1

    async def answered(self, model: str = "m", *, before: timedelta = timedelta(0)) -> None:
        """Somebody's request to the model was answered."""
        at = self.machine.now() - before
        row = Usage(
            request_id=uuid7(at),
            user_id=UUID(int=1),
            surface="chat.completions",
            model=model,
            engine="virtual",
            input_tokens=1,
            output_tokens=1,
            queue_ms=0,
            total_ms=1,
            outcome="completed",
            started_at=at,
        )
        async with self.database.transaction(everybody=True) as session:
            session.add(row)


def placed(state: State = State.RESIDENT, waiting: int = 0, engine: str = "virtual") -> Placed:
    """The engine's model, where the server moves it."""
    return Placed(
        engine=engine,
        model="m",
        state=state,
        is_moving=False,
        in_use=0,
        waiting=waiting,
        size_bytes=0,
        seen_bytes=0,
    )


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    """An empty one."""
    database = Database(database_url)
    yield House(database)
    await database.close()


@pytest.fixture
async def replica(house: House) -> Replica:
    """A replica whose model has just answered."""
    made = await house.replica()
    await house.answered()
    return made


async def test_a_model_is_measured_once_and_its_figures_are_in_force(house: House, replica: Replica) -> None:
    """What it costs and how many answers are worth giving it follow from the engine; nothing is asked twice."""
    assert (replica.store.cost("m"), replica.store.knee("virtual")) == (None, None)
    await replica.calibrating.step()
    asked = replica.engine.opened
    # Two answers at a time cost as much as one: a token takes half a step, ten times as long as a prompt token.
    assert (replica.store.cost("m"), replica.store.knee("virtual")) == (Cost(1, 10), 2)
    assert house.changes == 1
    await replica.calibrating.step()
    assert (replica.engine.opened, replica.engine.open_now) == (asked, 0)
    (record,) = await replica.store.all()
    assert (record.hardware, record.engine_version, record.server_version) == ("2 x Test GPU", "", "1")
    assert record.failure is None
    assert record.figures == replica.store.figures("virtual", "m")


async def test_what_models_leave_each_other_is_measured_when_all_of_them_are_known(house: House) -> None:
    """For every set of what is in memory, once; it steps aside like the rest, and is tried again."""
    house.machine.step_us = lambda running: STEP_US * running
    replica = await house.replica()
    other = VirtualEngine(house.machine, name="other", prefill_us=PREFILL_US)
    await replica.pool.change(other)
    house.placed = [placed(), placed(engine="other")]
    steps: list[int] = []

    def come() -> None:
        # In the middle of it: both have been measured alone.
        steps.append(house.machine.now_us)
        if replica.store.measured("other", "m") is not None and other.open_now and replica.engine.open_now:
            replica.load[0] = 1

    house.machine.on_step = come
    await replica.calibrating.step()
    assert (other.open_now, replica.engine.open_now, house.machine.running) == (0, 0, [])
    assert _beside(replica) == {"virtual": [], "other": []}
    house.machine.on_step = lambda: None
    replica.load[0] = 0
    house.machine.now_us += 1000 * REST_MS_MIN
    await replica.calibrating.step()
    found = _beside(replica)
    assert [names for names, _ in found["virtual"]] == [["other"]]
    assert [names for names, _ in found["other"]] == [["virtual"]]
    # Half of the machine, and a little less: the other one also reads its prompts meanwhile.
    assert all(0.3 < left < 0.5 for places in found.values() for _, left in places)
    asked = other.opened
    await replica.calibrating.step()
    assert other.opened == asked


def _beside(replica: Replica) -> dict[str, list[tuple[list[str], float]]]:
    """By engine: beside which others, and what was left."""
    measured = {name: replica.store.measured(name, "m") for name in ("virtual", "other")}
    return {
        name: [([engine for engine, _ in each.others], each.left) for each in found.beside]
        for name, found in measured.items()
        if found is not None
    }


async def test_another_replica_learns_it_by_reading(house: House, replica: Replica) -> None:
    """And does not measure it again, even if it has not read yet."""
    await replica.calibrating.step()
    other = await house.replica()
    await other.calibrating.step()
    assert other.engine.opened == 0
    assert other.store.cost("m") == Cost(1, 10)
    third = await house.replica()
    await third.store.read()
    assert third.store.knee("virtual") == 2


async def test_a_model_that_may_be_cold_is_not_asked(house: House) -> None:
    """Nobody knows what this engine has in memory, but for what has answered lately, and that may have gone since."""
    replica = await house.replica()
    await replica.calibrating.step()
    await house.answered(before=STAYS + timedelta(seconds=1))
    await replica.calibrating.step()
    await house.answered("m", before=timedelta(minutes=1))
    await house.answered("another", before=timedelta(seconds=1))
    await replica.calibrating.step()
    assert replica.engine.opened == 0
    with pytest.raises(Conflict, match="not in memory"):
        await replica.calibrating.measure_now("virtual", None)


@pytest.mark.parametrize("use", ["runs", "waits", "here", "draining", "moves", "no hardware"])
async def test_an_engine_in_use_is_left_alone(house: House, replica: Replica, use: str) -> None:
    """Whether somebody runs or waits, here or elsewhere, or it takes no requests, or the box is not known yet."""
    match use:
        case "runs":
            replica.load[0] = 1
        case "waits":
            replica.load[1] = 1
        case "draining":
            replica.pool.drain("virtual", is_draining=True)
        case "no hardware":
            house.hardware = ""
        case "moves":
            house.placed = [placed(waiting=1)]
        case _:
            with replica.pool.using(replica.engine):
                await replica.calibrating.step()
    if use != "here":
        await replica.calibrating.step()
    assert replica.engine.opened == 0
    # As soon as it is free.
    replica.load[:] = 0, 0
    replica.pool.drain("virtual", is_draining=False)
    house.hardware, house.placed = "CPU", []
    await replica.calibrating.step()
    assert replica.store.cost("m") is not None


async def test_it_steps_aside_at_once_and_rests_for_longer_each_time(replica: Replica) -> None:
    """Its streams are closed before the next look of the watch is over, and nothing is kept of them."""
    machine, rest_ms = replica.machine, REST_MS_MIN
    for _ in range(3):
        begun_us = machine.now_us
        came_us: list[int] = []

        def come(begun_us: int = begun_us, came_us: list[int] = came_us) -> None:
            if machine.now_us > begun_us + 500_000 and not came_us:
                came_us.append(machine.now_us)
                replica.load[0] = 1

        machine.on_step = come
        await replica.calibrating.step()
        assert machine.now_us - came_us[0] <= 1000 * WATCH_EVERY_MS + 128 * STEP_US
        assert replica.engine.open_now == 0
        assert machine.running == []
        assert await replica.store.all() == []
        machine.on_step = lambda: None
        replica.load[0] = 0
        asked = replica.engine.opened
        machine.now_us += 1000 * (rest_ms - 1)
        await replica.calibrating.step()
        assert replica.engine.opened == asked
        machine.now_us += 1000
        rest_ms *= 2
    # The last answer was long ago; the next is not.
    await _answered_again(replica)
    await replica.calibrating.step()
    assert replica.store.cost("m") is not None


async def _answered_again(replica: Replica) -> None:
    await House(replica.store._database, machine=replica.machine).answered()


async def test_a_failure_is_kept_with_its_reason_for_a_day(house: House, replica: Replica) -> None:
    """It costs nothing, is not repeated before, and is at once with another version of the engine or the server."""
    replica.engine.tells_usage = False
    await replica.calibrating.step()
    (record,) = await replica.store.all()
    assert (record.figures, record.failure) == (
        None,
        "Engine virtual tells no usage: it cannot be measured.",
    )
    assert replica.store.cost("m") is None
    assert not replica.store.is_due("virtual", "m")
    updated = await house.replica(server_version="2")
    await updated.store.read()
    assert updated.store.is_due("virtual", "m")
    replica.engine.version = "b9000"
    assert replica.store.is_due("virtual", "m")
    replica.engine.version = ""
    replica.engine.tells_usage = True
    house.machine.now_us += FAILURE_HOLDS // timedelta(microseconds=1)
    await house.answered()
    await replica.calibrating.step()
    assert replica.store.cost("m") == Cost(1, 10)
    assert len(await replica.store.all()) == 1


async def test_one_is_measured_at_a_time_on_the_whole_box(house: House, replica: Replica) -> None:
    """While another replica has the turn, nothing is asked; and where somebody comes meanwhile an admin is told so."""
    async with house.database.transaction(everybody=True) as session:
        await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
        with pytest.raises(InUse, match="being calibrated"):
            await replica.calibrating.measure_now("virtual", "m")
        await replica.calibrating.step()
    assert replica.engine.opened == 0

    def come() -> None:
        replica.load[1] = 1

    replica.machine.on_step = come
    with pytest.raises(Interrupted):
        await replica.calibrating.measure_now("virtual", "m")


async def test_asking_for_what_is_not_there_is_told(replica: Replica) -> None:
    """No engine, no model, an engine that is away."""
    with pytest.raises(NotFound, match="no engine"):
        await replica.calibrating.measure_now("gpu", None)
    with pytest.raises(NotFound, match="no model"):
        await replica.calibrating.measure_now("virtual", "large")

    async def away() -> Any:
        raise Unavailable("It is away.")

    replica.engine.probe = away  # type: ignore[method-assign]
    await replica.pool.probe_all()
    with pytest.raises(Unavailable, match="does not answer"):
        await replica.calibrating.measure_now("virtual", None)


async def test_figures_of_other_hardware_are_kept_but_not_in_force(house: House, replica: Replica) -> None:
    """The box got another GPU: it is measured anew, and the old result stays for whoever wants to compare."""
    await replica.calibrating.step()
    house.hardware = "Another GPU"
    await replica.store.read()
    assert (replica.store.cost("m"), replica.store.knee("virtual")) == (None, None)
    house.machine.step_us = lambda _: STEP_US // 2
    await house.answered()
    await replica.calibrating.step()
    assert replica.store.cost("m") is not None
    assert {record.hardware for record in await replica.store.all()} == {"2 x Test GPU", "Another GPU"}


async def test_a_new_version_of_the_engine_keeps_the_old_figures_until_it_is_measured(
    house: House, replica: Replica
) -> None:
    """They are better than a guess."""
    await replica.calibrating.step()
    replica.engine.version = "b9001"
    await replica.store.read()
    assert replica.store.cost("m") == Cost(1, 10)
    house.machine.step_us = lambda running: 2 * STEP_US * running
    await replica.calibrating.step()
    assert replica.store.cost("m") == Cost(1, 40)


async def test_what_cannot_be_read_is_measured_anew(house: House, replica: Replica) -> None:
    """Another version of the server has written figures of another form."""
    await replica.calibrating.step()
    async with house.database.transaction(everybody=True) as session:
        await session.execute(update(CalibrationRow).values(figures={"speed": "high"}))
    await replica.store.read()
    assert replica.store.cost("m") is None
    await replica.calibrating.step()
    assert replica.store.cost("m") == Cost(1, 10)


async def test_the_table_goes_and_comes_back(replica: Replica, database_url: str) -> None:
    """A step back forgets the results, a step forward lets new ones be kept."""
    await replica.calibrating.step()

    def back(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, "0004")

    engine = create_async_engine(async_url(database_url))
    async with engine.begin() as connection:
        await connection.run_sync(back)
    await engine.dispose()
    with pytest.raises(Unavailable, match="no schema"):
        await replica.store.all()
    await migrate(database_url)
    assert await replica.store.all() == []
    await replica.store.keep("virtual", "m", None, "It is a test.")
    assert len(await replica.store.all()) == 1


async def test_ollama_tells_what_is_in_memory(house: House) -> None:
    """Only that is measured; nothing is loaded."""
    told = ollama_engine.Ollama([ollama_engine.Model("tiny:latest"), ollama_engine.Model("large:latest")])
    async with ollama_engine.serve(told) as url:
        engine = Ollama(url.removesuffix("/v1"), name="ollama", slots=1, silence_ms_max=2_000)
        try:
            residents = await _residents(house, engine)
            assert await residents.of("ollama") == []
            assert engine.version == "0.32.14"
            await engine.load("tiny:latest")
            assert await residents.of("ollama") == ["tiny:latest"]
        finally:
            await engine.close()


async def test_models_that_the_server_moves_are_where_the_residency_says(house: House) -> None:
    """A cold one is not asked, although it may have answered lately; and one that is in memory is."""
    replica = await house.replica()
    await house.answered()
    house.placed = [placed(State.COLD)]
    await replica.calibrating.step()
    assert replica.engine.opened == 0
    house.placed = [placed()]
    await replica.calibrating.step()
    assert replica.store.cost("m") is not None


async def test_a_llama_server_with_slots_has_its_model_unless_it_sleeps(house: House, llama: Llama) -> None:
    """It tells both, and its version."""
    engine = adapter(llama, name="tiny")
    try:
        residents = await _residents(house, engine)
        (model,) = await engine.probe()
        assert await residents.of("tiny") == [model.id]
        assert engine.version
        engine.is_asleep = True
        assert await residents.of("tiny") == []
    finally:
        await engine.close()


async def _residents(house: House, engine: Any) -> Residents:
    clock = SystemClock()
    pool = Pool([engine], clock=clock, on_probed=lambda _: None, on_pressure=lambda *_: None)
    await pool.probe_all()
    boxes = NothingMoves(house)
    moves: Callable[[str], bool] = lambda _: False  # noqa: E731 (short)
    return Residents(pool, boxes, house.database, clock, moves)
