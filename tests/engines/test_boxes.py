"""Boxes: whose memory a model takes, what is free of it, and what a load took; drivers and devices are virtual."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engines.boxes import Boxes, is_here
from server.engines.gauge import UNBOUNDED_BYTES, DeviceGauge, Sizes, budget_of, taken
from server.engines.places import GIB, Load, State
from server.errors import InvalidRequest, NotFound, Unavailable
from server.messages import DeviceMemory, ModelMemory
from server.telemetry import REGISTRY
from tests.clocks import FakeClock
from tests.engines.test_residency import settle

LOCAL, REMOTE = "http://127.0.0.1:8000/v1", "http://gpu-box:8000/v1"
USABLE = 22 * GIB


@dataclass
class Host:
    """The devices of a virtual host, and the processes on them.

    Attributes:
        used: bytes by device and pid.
        hides: the driver does not tell processes.
    """

    gpus: tuple[str, ...] = ("a", "b")
    used: dict[str, dict[int, int]] = field(default_factory=dict)
    hides: bool = False
    looks: int = 0

    @property
    def memory(self) -> Mapping[str, DeviceMemory]:
        """See `Machine`."""
        return {gpu: self._device(gpu) for gpu in self.gpus}

    @property
    def accelerators(self) -> Sequence[str]:
        """See `Machine`."""
        return self.gpus

    async def read_memory(self) -> Mapping[str, DeviceMemory]:
        """See `Machine`."""
        self.looks += 1
        return self.memory

    def _device(self, gpu: str) -> DeviceMemory:
        processes = dict(self.used.get(gpu, {}))
        used = sum(processes.values())
        return DeviceMemory(
            uuid=gpu,
            total_bytes=USABLE + GIB,
            usable_bytes=USABLE,
            free_bytes=max(0, USABLE - used),
            used_bytes=used,
            processes=None if self.hides else processes,
        )


@dataclass
class Driven:
    """An engine whose models take memory of a device of the host.

    Attributes:
        takes: what each model really takes.
    """

    host: Host
    gpu: str
    takes: dict[str, int]
    rests_in: State = State.COLD
    pids: dict[str, int] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)

    async def states(self) -> dict[str, State]:
        """See `Driver`."""
        return {model: State.RESIDENT if model in self.pids else State.COLD for model in self.takes}

    async def load(self, model: str) -> None:
        """See `Driver`."""
        self.loads.append(model)
        self.pids[model] = 1000 + len(self.loads)
        self.host.used.setdefault(self.gpu, {})[self.pids[model]] = self.takes[model]
        assert sum(self.host.used[self.gpu].values()) <= USABLE + GIB, "out of memory"

    async def unload(self, model: str) -> None:
        """See `Driver`."""
        del self.host.used[self.gpu][self.pids.pop(model)]


@dataclass
class World:
    """Boxes over a host, in virtual time."""

    host: Host
    clock: FakeClock
    boxes: Boxes
    loads: list[Load]

    async def ask(self, engine: str, model: str) -> None:
        """One request, which is over at once."""
        async with self.boxes.use(engine, model, caused_by="ann"):
            pass

    def later(self, engine: str, model: str) -> asyncio.Task[None]:
        """The same in the background."""
        return asyncio.create_task(self.ask(engine, model))


@asynccontextmanager
async def world(
    host: Host, foreseen: Mapping[str, int] | None = None, *, memory_bytes: int = 0
) -> AsyncIterator[World]:
    """Boxes that run.

    Args:
        foreseen: what models are said to take; nobody knows of others.
    """
    clock, loads = FakeClock(), list[Load]()
    sizes = {model: ModelMemory(size, size) for model, size in (foreseen or {}).items()}
    boxes = Boxes(
        host,
        memory_bytes=memory_bytes,
        estimated=lambda _, model: sizes.get(model, ModelMemory(0, 0)),
        clock=clock,
        on_load=loads.append,
    )
    running = asyncio.create_task(boxes.run())
    yield World(host, clock, boxes, loads)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_models_of_different_devices_do_not_wait_for_each_other() -> None:
    """Each GPU is a box: what fills one takes nothing of the other."""
    host = Host()
    engines = {gpu: Driven(host, gpu, {f"m{gpu}": 15 * GIB}) for gpu in host.gpus}
    async with world(host, {"ma": 15 * GIB, "mb": 15 * GIB}) as there:
        for gpu, driver in engines.items():
            there.boxes.join(gpu, driver, url=LOCAL, devices=(gpu,))
        async with there.boxes.use("a", "ma", caused_by="ann"):
            await there.ask("b", "mb")
        assert {load.engine: load.evicted for load in there.loads} == {"a": (), "b": ()}


async def test_engines_of_one_device_share_its_budget() -> None:
    """Two engines on one GPU: the second model comes when the first has gone."""
    host = Host()
    one, two = (Driven(host, "a", {name: 15 * GIB}) for name in ("m", "n"))
    async with world(host, {"m": 15 * GIB, "n": 15 * GIB}) as there:
        there.boxes.join("one", one, url=LOCAL, devices=("a",))
        there.boxes.join("two", two, url=LOCAL, devices=("a",))
        await there.ask("one", "m")
        asked = there.later("two", "n")
        await settle()
        assert not asked.done()  # the first may still be wanted
        there.clock.advance(timedelta(minutes=1))
        await asked
        assert there.loads[-1].evicted == (("one", "m"),)
        assert {placed.model: placed.state for placed in there.boxes.view()} == {"m": State.COLD, "n": State.RESIDENT}


async def test_without_devices_it_is_the_only_gpu() -> None:
    """On a host with one GPU nobody need say where an engine is; of several, or elsewhere, nobody knows."""
    for gpus, url, is_bounded in ((("a",), LOCAL, True), (("a", "b"), LOCAL, False), (("a",), REMOTE, False)):
        host = Host(gpus)
        driver = Driven(host, "a", {"m": 1})
        async with world(host, {"m": USABLE + 1}) as there:
            there.boxes.join("one", driver, url=url)
            await there.ask("one", "m")
            assert there.boxes.view()[0].size_bytes == (USABLE if is_bounded else USABLE + 1)
            assert there.boxes.total_bytes("one") == (USABLE + GIB if is_bounded else 0)
        assert (host.looks > 0) is is_bounded


async def test_the_setting_is_the_budget_of_each_box() -> None:
    """It goes before what the devices have, and holds where there are none."""
    host = Host()
    async with world(host, {"m": 2 * GIB}, memory_bytes=GIB) as there:
        there.boxes.join("a", Driven(host, "a", {"m": 1}), url=LOCAL, devices=("a",))
        there.boxes.join("far", Driven(host, "a", {"m": 1}), url=REMOTE)
        for engine in ("a", "far"):
            with pytest.raises(Unavailable) as refused:
                await there.ask(engine, "m")
            assert refused.value.code == "model_too_large"


async def test_memory_that_strangers_hold_is_waited_for() -> None:
    """A game has the GPU: the model waits, nothing is loaded into what is not there, until the game ends."""
    host = Host()
    driver = Driven(host, "a", {"m": 15 * GIB})
    async with world(host, {"m": 15 * GIB}) as there:
        there.boxes.join("one", driver, url=LOCAL, devices=("a",))
        host.used["a"] = {77: 10 * GIB}
        asked = there.later("one", "m")
        for _ in range(5):
            await settle()
            there.clock.advance(timedelta(seconds=1))
        await settle()
        assert (asked.done(), driver.loads) == (False, [])
        host.used["a"] = {}
        for _ in range(3):
            await settle()
            there.clock.advance(timedelta(seconds=1))
        await asked


async def test_an_engine_that_spills_is_given_what_there_is() -> None:
    """Ollama puts into main memory what the GPU does not hold: its model is larger than the box, and yet loaded."""
    host = Host()
    driver = Driven(host, "a", {"m": 10 * GIB})
    async with world(host, {"m": 2 * USABLE}) as there:
        there.boxes.join("ollama", driver, url=LOCAL, devices=("a",), spills=True)
        host.used["a"] = {77: 10 * GIB}
        await there.ask("ollama", "m")
        assert there.boxes.view()[0].size_bytes == USABLE


async def test_what_a_load_took_is_learned() -> None:
    """A model that takes more than foreseen is booked with what was seen; both are shown, and their ratio is told."""
    host = Host()
    driver = Driven(host, "a", {"m": 12 * GIB, "unknown": 3 * GIB})
    async with world(host, {"m": 10 * GIB}) as there:
        there.boxes.join("learns", driver, url=LOCAL, devices=("a",))
        await there.ask("learns", "m")
        await there.ask("learns", "unknown")
        view = {placed.model: placed for placed in there.boxes.view()}
        assert view["m"].seen_bytes == 12 * GIB
        assert view["unknown"].seen_bytes == 3 * GIB
        there.clock.advance(timedelta(minutes=1))
        await there.boxes.unload("learns", "m")
        await there.ask("learns", "m")
        view = {placed.model: placed for placed in there.boxes.view()}
        assert (view["m"].size_bytes, view["m"].seen_bytes) == (12 * GIB, 12 * GIB)
        labels = {"engine": "learns"}
        assert REGISTRY.get_sample_value("wirthforge_model_memory_ratio_count", labels) == 2
        assert REGISTRY.get_sample_value("wirthforge_model_memory_ratio_sum", labels) == pytest.approx(2.4)
        there.boxes.leave("learns")
        assert there.boxes.view() == []


async def test_an_engine_without_a_driver_enters_at_once() -> None:
    """And what cannot be unloaded is not found."""
    async with world(Host()) as there:
        await there.ask("plain", "m")
        with pytest.raises(NotFound):
            await there.boxes.unload("plain", "m")


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        (("c",), "This host has no device 'c'. It has a, b."),
        (("a", "a"), "A device is named twice."),
        (
            ("a", "b"),
            "The engine single has a in the box of a. A device is in one box only: name the same devices, or none.",
        ),
    ],
)
async def test_devices_that_cannot_be(devices: tuple[str, ...], reason: str) -> None:
    """Each is refused with what to do; the engine's own old devices are in nobody's way."""
    async with world(Host()) as there:
        others = {"single": ("a",), "none": (), "new": ("b",)}
        with pytest.raises(InvalidRequest) as refused:
            there.boxes.check("new", devices, others)
        assert (refused.value.message, refused.value.param) == (reason, "devices")
        there.boxes.check("new", ("a",), others)
        there.boxes.check("new", (), others)
        there.boxes.check("single", ("a", "b"), {"single": ("a",)})
    async with world(Host(())) as nothing_known:
        nothing_known.boxes.check("new", ("c",), {})


def memory(uuid: str, used: int, **processes: int) -> DeviceMemory:
    """A device with processes p1, p2 and so on."""
    return DeviceMemory(uuid=uuid, used_bytes=used, processes={int(name[1:]): size for name, size in processes.items()})


@pytest.mark.parametrize(
    ("before", "after", "size"),
    [
        (memory("a", 10, p1=10), memory("a", 25, p1=10, p2=14), 15),  # one came; its context counts too
        (memory("a", 10, p1=10), memory("a", 25, p1=25), 15),  # one grew (vLLM wakes up)
        (memory("a", 10, p1=10), memory("a", 25, p1=12, p2=13), None),  # another grew too
        (memory("a", 10, p1=10), memory("a", 15, p2=15), None),  # another went
        (memory("a", 10, p1=10), memory("a", 10, p1=10), None),  # nothing came
        (DeviceMemory(uuid="a", used_bytes=1), DeviceMemory(uuid="a", used_bytes=9), None),  # processes not told
        (memory("a", 10, p1=10), memory("b", 25, p1=10, p2=14), None),  # another device
    ],
)
def test_what_was_taken(before: DeviceMemory, after: DeviceMemory, size: int | None) -> None:
    """The difference of what is used, where exactly one process came or grew."""
    assert taken([before], [after]) == size


def test_a_group_is_taken_together() -> None:
    """A model that is spread over two devices took the sum; nothing is known where one of them is not."""
    before, after = [memory("a", 0), memory("b", 0)], [memory("a", 5, p1=5), memory("b", 7, p1=7)]
    assert taken(before, after) == 12
    assert taken(before, [after[0], DeviceMemory(uuid="b", used_bytes=7)]) is None
    assert taken([], []) is None


async def test_a_group_has_as_much_as_its_fullest_device_allows() -> None:
    """A model is spread evenly, so the smaller room counts for each."""
    host = Host(used={"a": {1: 5 * GIB}})
    assert budget_of(("a", "b"), host.memory) == 2 * USABLE
    assert budget_of(("a", "c"), host.memory) == budget_of((), host.memory) == UNBOUNDED_BYTES
    gauge = DeviceGauge(("a", "b"), host.read_memory, Sizes(lambda *_: ModelMemory(0, 0)))
    assert gauge.free_for("x") is None
    await gauge.read()
    assert gauge.free_for("x") == 2 * (USABLE - 5 * GIB)


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_booked_is_at_least_what_was_seen(expected: int, band: int, seen: int) -> None:
    """Never less than the upper end, never less than seen; as `MemoryEstimate.at_least` has it."""
    sizes = Sizes(lambda *_: ModelMemory(expected, expected + band))
    sizes.saw("e", "m", seen)
    assert sizes.bytes_of("e", "m") == expected + band + max(0, seen - expected) >= seen


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:11434", True),
        ("http://[::1]:11434", True),
        ("http://localhost:8000/v1", True),
        ("http://gpu:8000/v1", False),
        ("http://192.168.1.7:8000", False),
        ("nonsense", False),
    ],
)
def test_what_is_here(url: str, here: bool) -> None:
    """By the name alone."""
    assert is_here(url) is here
