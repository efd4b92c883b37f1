"""The monitor: it sees what is there, and no provider can hurt it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from server.clock import SystemClock
from server.hardware.devices import Absent, Device, Provider, Sample
from server.hardware.monitor import DEVICES_EVERY_MS, EVENTS_MAX, SAMPLE_EVERY_MS, Monitor
from server.hardware.providers import Loaded, load
from server.telemetry import REGISTRY
from tests.clocks import BEGINNING, FakeClock
from tests.hardware.conftest import Stub
from tests.hardware.conftest import gpu as nvidia_gpu
from tests.hardware.parts import GIB, Made, gpu

ANSWER_MS_MAX = 200


def told(metric: str, /, **labels: str) -> float | None:
    """What Prometheus would be told."""
    return REGISTRY.get_sample_value(f"wirthforge_hardware_{metric}", labels)


class Monitors:
    """Makes monitors that end with the test."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.made: list[Monitor] = []

    def of(self, *providers: Provider, answer_ms_max: int = 10_000) -> Monitor:
        """One of some providers."""
        self.made.append(Monitor(Loaded(providers, {}), self._clock, answer_ms_max=answer_ms_max))
        return self.made[-1]


@pytest.fixture
async def monitors(clock: FakeClock) -> AsyncIterator[Monitors]:
    """A maker of monitors."""
    made = Monitors(clock)
    yield made
    for monitor in made.made:
        monitor.close()


async def test_it_sees_all_devices_in_one_list(monitors: Monitors) -> None:
    """Numbered through, each uuid once, with the name of the provider that really told of it."""
    one, other = Made("one", ["a", "b"]), Made("other", ["b", "c"])
    other.listed = lambda: [gpu("b", "a lie"), gpu("c", "a lie")]
    snapshot = await monitors.of(one, other).look()
    assert [(device.index, device.uuid, device.provider) for device in snapshot.devices] == [
        (0, "a", "one"),
        (1, "b", "one"),
        (2, "c", "other"),
    ]
    assert set(snapshot.samples) == {"a", "b", "c"}
    assert len(snapshot.topology.links) == 3


async def test_nothing_there_is_normal(monitors: Monitors) -> None:
    """It is told as absent, logged as nothing, and looked for again: a driver may be loaded later."""
    made = Made()
    devices = made.listed

    def none() -> list[Device]:
        raise Absent("no driver")

    made.listed = none
    monitor = monitors.of(made)
    with structlog.testing.capture_logs() as lines:
        snapshot = await monitor.look()
    assert (snapshot.devices, snapshot.absent, snapshot.faults, lines) == ((), {"made": "no driver"}, {}, [])
    made.listed = devices
    snapshot = await monitor.look()
    assert ([device.uuid for device in snapshot.devices], snapshot.absent) == (["a"], {})


async def test_a_provider_that_hangs_costs_nobody_else(monitors: Monitors) -> None:
    """The others are sampled; it is not asked again until it answers, and one line tells of it, one of its end."""
    stuck, well = Made("stuck", ["s"]), Made("well", ["w"])
    monitor = monitors.of(stuck, well, answer_ms_max=ANSWER_MS_MAX)
    await monitor.look()
    stuck.gate.clear()
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            snapshot = await monitor.look()
            assert (set(snapshot.samples), len(snapshot.devices)) == ({"w"}, 2)
            assert snapshot.faults == {"stuck": f"it has not answered within {ANSWER_MS_MAX} ms"}
        assert (stuck.asked, well.asked) == (2, 4)
        stuck.gate.set()
        while "stuck" in (await monitor.look()).faults:
            pass
    assert set(monitor.snapshot.samples) == {"s", "w"}
    told = [(line["event"], line["provider"]) for line in lines]
    assert told == [("hardware is not told", "stuck"), ("hardware is told again", "stuck")]


async def test_closing_does_not_wait_for_what_hangs(monitors: Monitors) -> None:
    """Closing returns at once; the provider is closed when it has come back."""
    made = Made()
    monitor = monitors.of(made, answer_ms_max=20)
    made.gate.clear()
    await monitor.look()
    monitor.close()
    assert not made.closed.is_set()
    made.gate.set()
    assert await asyncio.to_thread(made.closed.wait, 10)


@pytest.mark.parametrize("what", ["devices", "sample", "no devices", "no sample"])
async def test_a_provider_that_fails_is_told_once(monitors: Monitors, what: str) -> None:
    """Whatever it raises or returns; and it is asked again."""
    broken, well = Made("broken", ["b"]), Made("well", ["w"])

    def fails(*_: object) -> list[Device]:
        raise ZeroDivisionError("of its own")

    listed, sampled = broken.listed, broken.sampled
    if what.endswith("devices"):
        broken.listed = fails if what == "devices" else lambda: ["no device"]  # type: ignore[list-item]
    else:
        broken.sampled = fails if what == "sample" else lambda _: "no sample"  # type: ignore[assignment, return-value]
    monitor = monitors.of(broken, well)
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            snapshot = await monitor.look()
            assert set(snapshot.samples) == {"w"}
            assert list(snapshot.faults) == ["broken"]
    assert [line["event"] for line in lines] == ["hardware is not told"]
    broken.listed, broken.sampled = listed, sampled
    assert (await monitor.look()).faults == {}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"used_bytes": "many"}, "Expected `int | null`, got `str` - at `$.used_bytes`"),
        ({"used_bytes": -1}, "Expected `int` >= 0 - at `$.used_bytes`"),
        ({"energy_mj": 1 << 64}, f"Expected `int` <= {(1 << 63) - 1} - at `$.energy_mj`"),
        ({"utilisation_percent": 101}, "Expected `int` <= 100 - at `$.utilisation_percent`"),
        ({"throttle": "hot"}, "Expected `array | null`, got `str` - at `$.throttle`"),
        ({"at": None}, "Expected `datetime`, got `null` - at `$.at`"),
    ],
)
async def test_nonsense_of_a_plugin_is_its_fault(monitors: Monitors, wrong: dict[str, Any], reason: str) -> None:
    """What could not be stored, shown or added is refused at the door, by the name of the reading."""
    made, well = Made(uuids=["a"]), Made("well", ["w"])
    made.sampled = lambda device: replace(Sample(uuid=device.uuid, at=BEGINNING), **wrong)
    snapshot = await monitors.of(made, well).look()
    assert snapshot.faults == {"made": f"ValidationError: {reason}"}
    assert set(snapshot.samples) == {"w"}


async def test_devices_are_listed_anew_now_and_then(monitors: Monitors, clock: FakeClock) -> None:
    """A MIG slice that was made appears within a minute, not at every look."""
    made = Made(uuids=["a"])
    monitor = monitors.of(made)
    await monitor.look()
    made.listed = lambda: [gpu("a"), gpu("b")]
    assert len((await monitor.look()).devices) == 1
    clock.advance(timedelta(milliseconds=DEVICES_EVERY_MS))
    assert len((await monitor.look()).devices) == 2


async def test_faults_of_gpus_are_kept_and_counted(monitors: Monitors) -> None:
    """The newest hundred, each logged and counted."""
    made = Made(uuids=["xid-gpu"])
    made.sampled = lambda device: Sample(uuid=device.uuid, at=BEGINNING, xids=(79, *[13] * 40))
    monitor = monitors.of(made)
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            await monitor.look()
    assert len(monitor.snapshot.events) == EVENTS_MAX
    assert monitor.snapshot.events[-1].xid == 13
    assert len(lines) == 3 * 41
    assert told("xid_total", device="xid-gpu", xid="79") == 3


async def test_prometheus_is_told_what_is_known(monitors: Monitors, clock: FakeClock) -> None:
    """In base units; what is not known has no line, and a device that went has none either."""
    made = Made(uuids=["g"])
    made.sampled = lambda device: Sample(
        uuid=device.uuid, at=BEGINNING, used_bytes=GIB, utilisation_percent=50, power_mw=1500, throttle=("hw_slowdown",)
    )
    monitor = monitors.of(made)
    await monitor.look()
    assert told("device_info", device="g", kind="gpu", name="GPU g", vendor="nvidia") == 1
    assert told("memory_used_bytes", device="g") == GIB
    assert told("utilisation_ratio", device="g") == 0.5
    assert told("power_watts", device="g") == 1.5
    assert told("throttled", device="g") == 1
    assert told("provider_up", provider="made") == 1
    assert told("temperature_celsius", device="g") is None
    made.listed = lambda: [gpu("h")]
    clock.advance(timedelta(milliseconds=DEVICES_EVERY_MS))
    await monitor.look()
    assert (told("memory_used_bytes", device="g"), told("memory_used_bytes", device="h")) == (None, GIB)


async def test_it_looks_every_few_seconds(monitors: Monitors, clock: FakeClock) -> None:
    """Once at the beginning, then whenever the time has come."""
    made = Made()
    monitor = monitors.of(made)
    running = asyncio.create_task(monitor.run())
    async with asyncio.timeout(10):
        for count in range(1, 4):
            while made.asked < count or not clock._sleepers:
                await SystemClock().sleep_ms(1)
            assert made.asked == count
            clock.advance(timedelta(milliseconds=SAMPLE_EVERY_MS))
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.usefixtures("stub")
async def test_a_box_with_gpus(stub: Stub, clock: FakeClock) -> None:
    """All of our own providers together, NVML over its ABI in a thread: GPUs first, the host last."""
    stub.tell(nvidia_gpu(0, link0="0x42"), nvidia_gpu(1), devices=2)
    monitor = Monitor(load(clock, []), clock)
    snapshot = await monitor.look()
    monitor.close()
    assert [device.uuid for device in snapshot.devices][:2] == ["GPU-0", "GPU-1"]
    assert snapshot.devices[-1].kind == "cpu"
    assert snapshot.topology.between(0, 1) == "nvlink"
    assert snapshot.samples["GPU-1"].power_mw == 350_000
    assert snapshot.faults == {}
