"""Where embedded models go: GPUs by NVML's ABI (our own library), llama.cpp's list by hand; and the command itself."""

import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import run

from benchmarks import tiny_model
from server.cli.placing import Spot, Wanted, spots, table
from server.embedded.llama_devices import NOTHING, Seen
from server.hardware.devices import Snapshot
from server.hardware.host import Host
from server.hardware.memory import GIB, MemoryEstimate, Part
from server.hardware.monitor import Monitor
from server.hardware.nvml import Nvml
from server.hardware.providers import Loaded
from server.hardware.room import links_of, memory_of
from tests.cli.programs import environment
from tests.clocks import FakeClock
from tests.hardware.conftest import Stub, gpu


def model(name: str, gib: int) -> Wanted:
    """A model that takes so much wherever it is."""
    size = gib * GIB
    found = MemoryEstimate((Part("weights", size, size, size), Part("compute", 0, 0, 0)), 4096, 1, "f16")
    return Wanted(name, found, found)


async def seen_by(nvml: Nvml, clock: FakeClock) -> Snapshot:
    """The GPUs of the stub, and this host."""
    monitor = Monitor(Loaded((nvml, Host(clock)), {}), clock)
    return await monitor.look()


def llama(count: int) -> list[Seen]:
    """What a llama.cpp with CUDA lists; its order is not the driver's."""
    return [Seen(f"CUDA{count - 1 - index}", f"0000:{0x41 + index:02x}:00.0") for index in range(count)]


def by_name(found: Sequence[Spot]) -> dict[str, Spot]:
    """The spots, to be asked for."""
    return {spot.name: spot for spot in found}


async def test_each_model_gets_a_gpu_and_sees_no_other(stub: Stub, nvml: Nvml, clock: FakeClock) -> None:
    """Three models, three GPUs of 80 GiB, each process shown its own by uuid."""
    stub.tell(*(gpu(index, used=0) for index in range(3)), devices=3)
    snapshot = await seen_by(nvml, clock)
    found = spots([model("a", 60), model("b", 50), model("c", 40)], snapshot, llama(3), present={})
    assert [spot.is_started for spot in found] == [True] * 3
    assert {spot.devices for spot in found} == {("GPU-0",), ("GPU-1",), ("GPU-2",)}
    for spot in found:
        assert spot.environment == NOTHING | {"CUDA_VISIBLE_DEVICES": spot.devices[0]}
        assert not spot.on_cpu


async def test_a_large_model_goes_where_nvlink_is(stub: Stub, nvml: Nvml, clock: FakeClock) -> None:
    """It needs two GPUs; of four the two that are joined by NVLink are taken, and the small one goes beside them."""
    stub.tell(*(gpu(index, used=0, level1=50, level2=50, level3=50) for index in range(4)), devices=4)
    stub.tell(gpu(1, used=0, level2=50, level3=50, link0="0x44"), gpu(3, used=0, link0="0x42"))
    snapshot = await seen_by(nvml, clock)
    found = by_name(spots([model("small", 20), model("large", 120)], snapshot, llama(4), present={}))
    assert found["large"].devices == ("GPU-1", "GPU-3")
    assert found["large"].environment["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-3"
    assert "nvlink" in found["large"].why
    assert found["small"].devices in {("GPU-0",), ("GPU-2",)}


async def test_links_never_say_same(stub: Stub, nvml: Nvml, clock: FakeClock) -> None:
    """Each pair of different devices, in the words of the placement."""
    stub.tell(*(gpu(index, level1=30, level2=50) for index in range(3)), devices=3)
    links = links_of([device for device in (await seen_by(nvml, clock)).devices if device.kind == "gpu"])
    assert len(links) == 3
    assert all(len(pair) == 2 for pair in links)
    assert "same" not in links.values()


async def test_what_does_not_fit_together_takes_turns(stub: Stub, nvml: Nvml, clock: FakeClock) -> None:
    """The first starts at once, the second when it is wanted, on the same GPU."""
    stub.tell(gpu(0, used=0), devices=1)
    found = spots([model("first", 40), model("second", 60)], await seen_by(nvml, clock), llama(1), present={})
    assert [(spot.devices, spot.is_started) for spot in found] == [(("GPU-0",), True), (("GPU-0",), False)]
    assert "loaded when somebody wants it" in found[1].why


async def test_what_fits_on_no_gpu_stays_in_main_memory(stub: Stub, nvml: Nvml, clock: FakeClock) -> None:
    """It is told how many bytes are missing, and sees no GPU."""
    stub.tell(gpu(0, used=70 * GIB), devices=1)
    snapshot = await seen_by(nvml, clock)
    (spot,) = spots([model("large", 12)], snapshot, llama(1), present={})
    assert spot.devices == tuple(device.uuid for device in snapshot.devices if device.kind == "cpu")
    assert (spot.on_cpu, spot.environment) == (True, NOTHING)
    # 9 GiB are free, 1 GiB of them kept.
    assert f"lacks 4.0 GiB ({4 * GIB} bytes). It stays in main memory." in spot.why


async def test_gpus_that_llama_cpp_cannot_use(stub: Stub, nvml: Nvml, clock: FakeClock) -> None:
    """A wheel without CUDA: nothing is placed on what it cannot reach, and that is said."""
    stub.tell(gpu(0, used=0), devices=1)
    snapshot = await seen_by(nvml, clock)
    (spot,) = spots([model("m", 1)], snapshot, [Seen("CPU")], present={})
    assert spot.why == "llama.cpp as it is installed here can use none of the GPUs, so it stays in main memory."
    assert spot.on_cpu
    lines = table([spot], snapshot).splitlines()
    assert lines[1].split()[:4] == ["m", "1.0", "at", "once"]


async def test_the_setting_bounds_each_box(stub: Stub, nvml: Nvml, clock: FakeClock) -> None:
    """Two models on two GPUs, with less for each than the GPU has; what it does not allow at all is refused."""
    stub.tell(*(gpu(index, used=0) for index in range(2)), devices=2)
    snapshot = await seen_by(nvml, clock)
    models = [model("a", 15), model("b", 15), model("c", 200)]
    found = by_name(spots(models, snapshot, llama(2), memory_bytes=20 * GIB, present={}))
    assert {found["a"].devices, found["b"].devices} == {("GPU-0",), ("GPU-1",)}
    assert (found["c"].is_started, found["c"].is_refused) == (False, True)
    assert f"{180 * GIB} bytes are missing. Requests for it are refused." in found["c"].why


async def test_without_a_gpu_nothing_is_hidden(clock: FakeClock) -> None:
    """The host alone: models start in the order given as far as there is room, and no variable is set."""
    monitor = Monitor(Loaded((Host(clock),), {}), clock)
    snapshot = await monitor.look()
    (host,) = memory_of(snapshot).values()
    assert host.usable_bytes is not None
    half = Part("weights", host.usable_bytes // 2 + 1, host.usable_bytes // 2 + 1, host.usable_bytes // 2 + 1)
    found = MemoryEstimate((half, Part("compute", 0, 0, 0)), 4096, 1, "f16")
    huge = MemoryEstimate((half, half, half, Part("compute", 0, 0, 0)), 4096, 1, "f16")
    models = [Wanted("a", found, found), Wanted("b", found, found), Wanted("unread", None, None)]
    first, second, unread = spots(models, snapshot, [], present={})
    assert [(spot.is_started, spot.on_cpu, spot.environment) for spot in (first, second, unread)] == [
        (True, False, {}),
        (False, False, {}),
        (True, False, {}),
    ]
    assert (first.why, unread.memory) == ("", None)
    # Too large for the machine, and yet tried, as one who starts it alone expects.
    (alone,) = spots([Wanted("huge", huge, huge)], snapshot, [], present={})
    assert alone.is_started
    assert alone.memory is not None
    assert alone.memory.high_bytes == host.usable_bytes
    assert "bytes are missing. It is loaded without any other, and slow." in alone.why


async def test_a_divided_gpu_is_used_by_slices(stub: Stub, nvml: Nvml, clock: FakeClock) -> None:
    """A model is never spread over slices, and never put on the whole."""
    stub.tell(gpu(0, mig=1), devices=1)
    snapshot = await seen_by(nvml, clock)
    found = spots([model("m", 60)], snapshot, llama(1), present={})
    assert all("GPU-0" not in spot.devices for spot in found)


def test_the_command_sees_the_gpus_of_the_driver(library: Path, tmp_path: Path) -> None:
    """`wirthforge models place` as a program, over the library in NVML's place; this llama.cpp has no CUDA."""
    Stub(tmp_path / "nvml.txt").tell(gpu(0, used=0), devices=1)
    tiny_model.build(tmp_path / "tiny.gguf")
    told = {"NVML_STUB": str(tmp_path / "nvml.txt"), "LD_LIBRARY_PATH": str(library.parent)}
    words = ["models", "place", "tiny.gguf", "--data-dir", str(tmp_path / "data")]
    done = run(  # noqa: S603 (our own program)
        [sys.executable, "-m", "server", *words],
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env=environment(tmp_path, **told),
        text=True,
        timeout=60,
    )
    head, row, why = done.stdout.splitlines()
    assert head.split() == ["model", "GiB", "starts", "where"]
    assert row.split()[:4] == ["tiny", "0.1", "at", "once"]
    assert "llama.cpp as it is installed here can use none of the GPUs" in why
