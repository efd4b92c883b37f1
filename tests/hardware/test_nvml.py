"""NVIDIA GPUs: pynvml over a library of our own that speaks NVML's ABI; once over what this machine has."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from server.hardware.devices import Absent, Device, DeviceProcess, Sample, topology_of
from server.hardware.nvml import Nvml
from tests.hardware.conftest import GIB, MakeStub, Stub, gpu

NOT_SUPPORTED, GPU_IS_LOST, LIBRARY_MISMATCH, NO_DRIVER = 3, 15, 18, 9
READINGS = (
    "used_bytes", "free_bytes", "reserved_bytes", "utilisation_percent", "memory_utilisation_percent", "power_mw",
    "power_limit_mw", "energy_mj", "temperature_c", "throttle", "processes",
)  # fmt: skip


def test_a_gpu_tells_all(stub: Stub, nvml: Nvml, tmp_path: Path) -> None:
    """Every reading arrives with the number that the library gave, and nothing is absent."""
    node = tmp_path / "bus" / "pci" / "devices" / "0000:41:00.0"
    node.mkdir(parents=True)
    (node / "numa_node").write_text("1\n")
    stub.tell(gpu(0, compute0=f"100:{12 * GIB}", mps0=f"101:{6 * GIB}", mps1=f"100:{GIB}"), devices=1)
    (device,) = nvml.devices()
    assert device == Device(
        provider="nvml",
        uuid="GPU-0",
        kind="gpu",
        vendor="nvidia",
        name="NVIDIA H100 80GB HBM3",
        memory_bytes=80 * GIB,
        driver="580.105.08",
        pci_address="0000:41:00.0",
        numa_node=1,
        compute_capability="9.0",
    )
    assert nvml.sample(device) == Sample(
        uuid="GPU-0",
        at=nvml._clock.now(),
        used_bytes=20 * GIB,
        reserved_bytes=GIB,
        free_bytes=59 * GIB,
        utilisation_percent=75,
        memory_utilisation_percent=40,
        power_mw=350_000,
        power_limit_mw=700_000,
        energy_mj=123_456_789_012,
        temperature_c=61,
        throttle=("sw_power_cap",),
        processes=(DeviceProcess(pid=100, used_bytes=12 * GIB), DeviceProcess(pid=101, used_bytes=6 * GIB)),
    )


def test_what_a_gpu_does_not_support_is_absent_with_a_reason(stub: Stub, nvml: Nvml) -> None:
    """A card of a desktop lacks half of it; the rest stands."""
    stub.tell(gpu(0, energy=None, busy=None, mig=None, limit=0xFFFF_FFFF, compute0="7"), devices=1)
    sample = nvml.sample(nvml.devices()[0])
    assert (sample.energy_mj, sample.utilisation_percent, sample.power_limit_mw) == (None, None, None)
    assert sample.absent == {
        "energy_mj": "Not Supported",
        "utilisation_percent": "Not Supported",
        "memory_utilisation_percent": "Not Supported",
        "power_limit_mw": "no value",
    }
    assert (sample.temperature_c, sample.processes) == (61, (DeviceProcess(pid=7, used_bytes=None),))


def test_every_reading_may_fail_alone(stub: Stub, nvml: Nvml) -> None:
    """Whichever call fails, and with whatever, only its own readings are missing."""
    calls = {
        "nvmlDeviceGetPowerUsage": {"power_mw"},
        "nvmlDeviceGetEnforcedPowerLimit": {"power_limit_mw"},
        "nvmlDeviceGetTotalEnergyConsumption": {"energy_mj"},
        "nvmlDeviceGetTemperatureV": {"temperature_c"},
        "nvmlDeviceGetCurrentClocksEventReasons": {"throttle"},
        "nvmlDeviceGetUtilizationRates": {"utilisation_percent", "memory_utilisation_percent"},
        "nvmlDeviceGetMemoryInfo_v2": {"reserved_bytes"},
        "nvmlDeviceGetMPSComputeRunningProcesses_v3": {"mps_processes"},
    }
    stub.tell(gpu(0), devices=1)
    (device,) = nvml.devices()
    for call, readings in calls.items():
        for code in (NOT_SUPPORTED, 4, 999, 12345):
            stub.tell({f"0.fail.{call}": code})
            sample = nvml.sample(device)
            assert set(sample.absent) == readings, call
            assert {name for name in READINGS if getattr(sample, name) is None} == readings - {"mps_processes"}
        stub.tell({f"0.fail.{call}": None})


def test_a_gpu_that_fell_off_the_bus_tells_nothing_but_that(stub: Stub, nvml: Nvml) -> None:
    """Its neighbour goes on; when it is listed anew, the one that cannot even be named is left out."""
    stub.tell(gpu(0), gpu(1), devices=2)
    lost, well = nvml.devices()
    stub.tell({"0.lost": 1})
    sample = nvml.sample(lost)
    assert [getattr(sample, name) for name in READINGS] == [None] * len(READINGS)
    assert set(READINGS) <= set(sample.absent)
    assert set(sample.absent.values()) == {"GPU is lost"}
    assert nvml.sample(well).absent == {}
    assert [device.uuid for device in nvml.devices()] == ["GPU-1"]
    assert nvml.sample(lost).absent == {"device": "not there any more"}


def test_an_old_driver_lacks_functions(stub_of: MakeStub, old_library: Path, nvml: Nvml) -> None:
    """Where an older form of a function is there, it is used; reserved memory then counts as used."""
    stub_of(old_library).tell(gpu(0, compute0=f"100:{GIB}"), devices=1, driver="450.51.05")
    (device,) = nvml.devices()
    sample = nvml.sample(device)
    assert (sample.used_bytes, sample.reserved_bytes, sample.free_bytes) == (21 * GIB, None, 59 * GIB)
    assert (sample.temperature_c, sample.throttle) == (61, ("sw_power_cap",))
    assert sample.processes == (DeviceProcess(pid=100, used_bytes=GIB),)
    missing = "Function Not Found"
    assert sample.absent == dict.fromkeys(("energy_mj", "reserved_bytes", "mps_processes"), missing)


def test_slices_are_devices_of_their_own(stub: Stub, nvml: Nvml) -> None:
    """A divided GPU is followed by its MIG slices, whose numbers may have gaps; faults and power are the GPU's."""
    stub.tell(gpu(0, mig=1, busy=None), devices=1)
    for number in (1, 5):
        told = {"uuid": f"MIG-{number}", "name": "NVIDIA H100 MIG 3g.40gb", "total": 40 * GIB, "used": number * GIB}
        stub.tell({f"0.mig{number}.{name}": value for name, value in told.items()})
    whole, first, second = nvml.devices()
    assert (whole.kind, whole.is_divided) == ("gpu", True)
    assert [(one.kind, one.uuid, one.parent, one.memory_bytes) for one in (first, second)] == [
        ("mig", "MIG-1", "GPU-0", 40 * GIB),
        ("mig", "MIG-5", "GPU-0", 40 * GIB),
    ]
    sample = nvml.sample(second)
    assert (sample.used_bytes, sample.free_bytes, sample.power_mw) == (5 * GIB, 35 * GIB, None)
    assert sample.absent["utilisation_percent"] == "Not Supported"
    assert nvml.sample(whole).power_mw == 350_000
    assert topology_of([whole, first, second]).between(1, 2) == "system"


@pytest.mark.parametrize(
    ("level", "link"), [(0, "pcie_switch"), (10, "pcie_switch"), (20, "pcie_switch"), (30, "host_bridge"), (40, "numa"),
                        (50, "system")],
)  # fmt: skip
def test_the_nearest_common_ancestor_is_the_link(stub: Stub, nvml: Nvml, level: int, link: str) -> None:
    """NVML's levels, one by one, in both directions."""
    stub.tell(gpu(0, level1=level), gpu(1), devices=2)
    topology = topology_of(nvml.devices())
    assert topology.links == (("same", link), (link, "same"))


def test_nvlink_goes_before_pcie(stub: Stub, nvml: Nvml) -> None:
    """Directly, by the address at the other end; a link that is down is none."""
    stub.tell(gpu(0, level1=50, level2=50, link0="down", link1="0x42", link2="0x43"), devices=3)
    stub.tell(gpu(1, level2=30, link0="0x41"), gpu(2, link0="down"))
    topology = topology_of(nvml.devices())
    assert topology.links == (
        ("same", "nvlink", "nvlink"),
        ("nvlink", "same", "host_bridge"),
        ("nvlink", "host_bridge", "same"),
    )


def test_a_switch_joins_all_that_it_links(stub: Stub, nvml: Nvml) -> None:
    """Those with links to an NVSwitch reach each other by NVLink; the one without does not."""
    for index in range(4):
        links = {"link0": "switch"} if index != 2 else {}
        stub.tell(gpu(index, level1=50, level2=50, level3=50, **links), devices=4)
    topology = topology_of(nvml.devices())
    for one in range(4):
        for other in range(4):
            expected = "same" if one == other else "system" if 2 in (one, other) else "nvlink"
            assert topology.between(one, other) == expected


def test_faults_come_with_the_sample_of_their_gpu(stub: Stub, nvml: Nvml) -> None:
    """Each XID once, in order, whichever GPU is asked first."""
    stub.tell(gpu(0), gpu(1), devices=2)
    one, other = nvml.devices()
    assert nvml.sample(one).xids == ()
    stub.tell(xid0="1:79", xid1="0:13", xid2="1:43")
    assert nvml.sample(one).xids == (13,)
    assert nvml.sample(other).xids == (79, 43)
    assert (nvml.sample(one).xids, nvml.sample(other).xids) == ((), ())
    nvml.devices()  # listing anew registers nothing twice
    stub.tell(xid3="0:48")
    assert nvml.sample(one).xids == (48,)


def test_faults_may_not_be_told(stub: Stub, nvml: Nvml) -> None:
    """By a GPU, or by a driver, that has no such events; and that is said."""
    stub.tell(gpu(0, events=1), devices=1)
    assert nvml.sample(nvml.devices()[0]).absent == {"xids": "this GPU reports no XID events"}
    nvml.close()
    stub.tell({"fail.nvmlEventSetCreate": NOT_SUPPORTED})
    assert nvml.sample(nvml.devices()[0]).absent == {"xids": "Not Supported"}
    nvml.close()
    stub.tell({"fail.nvmlEventSetCreate": None, "0.events": 8, "fail.nvmlEventSetWait_v2": GPU_IS_LOST})
    assert nvml.sample(nvml.devices()[0]).absent == {"xids": "GPU is lost"}


@pytest.mark.parametrize(
    ("code", "reason"),
    [(NO_DRIVER, "Driver Not Loaded"), (LIBRARY_MISMATCH, "RM has detected an NVML/RM version mismatch.")],
)
def test_a_driver_that_does_not_work_is_no_gpu(stub: Stub, nvml: Nvml, code: int, reason: str) -> None:
    """Not loaded, or updated under our feet: nothing is there, and why. When it works, the GPU is there."""
    stub.tell(gpu(0), {"fail.nvmlInitWithFlags": code}, devices=1)
    with pytest.raises(Absent, match=reason):
        nvml.devices()
    stub.tell({"fail.nvmlInitWithFlags": None})
    assert [device.uuid for device in nvml.devices()] == ["GPU-0"]
    stub.tell({"fail.nvmlDeviceGetCount_v2": GPU_IS_LOST})
    with pytest.raises(Absent, match="GPU is lost"):
        nvml.devices()
    stub.tell({"fail.nvmlDeviceGetCount_v2": None})
    assert [device.uuid for device in nvml.devices()] == ["GPU-0"]


def test_an_impossible_utilisation_is_none(stub: Stub, nvml: Nvml) -> None:
    """All bits one is how drivers write that they do not know."""
    stub.tell(gpu(0, busy=0xFFFF_FFFF), devices=1)
    sample = nvml.sample(nvml.devices()[0])
    assert sample.utilisation_percent is None
    assert sample.absent == dict.fromkeys(("utilisation_percent", "memory_utilisation_percent"), "no value")


def test_unknown_reasons_are_shown_as_what_they_are(stub: Stub, nvml: Nvml) -> None:
    """A bit that this version has no name for is not dropped."""
    stub.tell(gpu(0, reasons=0x40 | 1 << 20), devices=1)
    assert nvml.sample(nvml.devices()[0]).throttle == ("hw_thermal_slowdown", "unknown_0x100000")


ASK = """
import msgspec, sys
from server.clock import SystemClock
from server.hardware.devices import Absent
from server.hardware.nvml import Nvml
nvml = Nvml(SystemClock())
try:
    found = [(device, nvml.sample(device)) for device in nvml.devices()]
except Absent as error:
    found = str(error)
nvml.close()
sys.stdout.buffer.write(msgspec.json.encode(found))
"""


def _ask(**environment: str) -> object:
    """In a program of its own, where pynvml looks for its library as always."""
    command = [sys.executable, "-c", ASK]
    asked = subprocess.run(  # noqa: S603
        command, env={**os.environ, **environment}, capture_output=True, check=True, timeout=60
    )
    return msgspec.json.decode(asked.stdout)


def test_pynvml_finds_the_library_by_itself(library: Path, tmp_path: Path) -> None:
    """By its name, through the loader's path, as it finds the driver's."""
    Stub(tmp_path / "nvml.txt").tell(gpu(0), devices=1)
    found = _ask(LD_LIBRARY_PATH=str(library.parent), NVML_STUB=str(tmp_path / "nvml.txt"))
    assert isinstance(found, list)
    ((device, sample),) = found
    assert (device["uuid"], sample["free_bytes"], sample["absent"]) == ("GPU-0", 59 * GIB, {})


def test_this_machine_is_a_normal_state() -> None:
    """With whatever driver it has, or none: either devices with samples, or a reason."""
    found = _ask()
    if isinstance(found, str):
        assert found
    else:
        assert isinstance(found, list)
        assert all(sample["uuid"] == device["uuid"] and device["name"] for device, sample in found)
