"""What Linux tells in small files: AMD's GPUs, NPUs, and the host, from trees that the test has made."""

import os
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.clock import SystemClock
from server.hardware.amd import Amd
from server.hardware.devices import Absent, DeviceProcess
from server.hardware.host import Host
from server.hardware.npu import Npu
from tests.clocks import FakeClock
from tests.hardware.trees import AMD_NPU, GIB, INTEL_NPU, accelerator, amd_card, proc, write

MADE = st.dictionaries(
    st.sampled_from(
        [*amd_card(0), *amd_card(1), *accelerator(0, **INTEL_NPU), *accelerator(1, **AMD_NPU),
         "class/drm/card0-DP-1/status", "class/drm/renderD128/device/vendor", "class/hwmon/hwmon0/name",
         "class/hwmon/hwmon0/temp1_input", "class/powercap/intel-rapl:0/energy_uj", "fs/cgroup/memory.max",
         "fs/cgroup/memory.current", "fs/cgroup/memory.stat", "fs/cgroup/cpu.max", "fs/cgroup/cpu/cpu.cfs_quota_us",
         "meminfo", "stat", "cpuinfo", "self/cgroup"]
    ),
    st.one_of(
        st.sampled_from(
            ["0x1002", "0x8086", "DRIVER=intel_vpu\nPCI_SLOT_NAME=0000:00:0b.0", "MemTotal: 5 kB\nMemAvailable: 9 kB",
             "max 100000", "0 0", "-1", "0::/\n4:cpu:/x\n5:memory:../..", "k10temp", "cpu 1 2 3 4 5", "cpu", "max", ""]
        ).map(str.encode),
        st.integers(-(10**25), 10**25).map(lambda number: str(number).encode()),
        st.binary(max_size=40),
    ),
)  # fmt: skip


def _missing(name: str) -> Any:
    raise ImportError(name)


@given(MADE)
def test_whatever_files_say_nobody_falls(files: dict[str, bytes]) -> None:
    """Missing, empty, huge, negative or no text: a provider answers, or says that nothing is there."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        clock = FakeClock()
        amd = Amd(clock, sysfs=root, proc=root, load=_missing)
        npu = Npu(clock, sysfs=root, proc=root, load=_missing)
        for provider in (amd, npu, Host(clock, proc=root, sysfs=root)):
            try:
                devices = provider.devices()
            except Absent:
                continue
            for _ in range(2):
                clock.advance(timedelta(seconds=5))
                for device in devices:
                    sample = provider.sample(device)
                    assert sample.uuid == device.uuid
                    assert sample.free_bytes is None or sample.free_bytes >= 0
                    for name in ("used_bytes", "free_bytes", "utilisation_percent", "power_mw", "temperature_c"):
                        assert (getattr(sample, name) is None) == (name in sample.absent), name
                    assert sample.utilisation_percent is None or 0 <= sample.utilisation_percent <= 100


def test_an_amd_gpu(tmp_path: Path) -> None:
    """Every reading in its unit; connectors and other vendors' cards are no AMD GPUs."""
    write(tmp_path, {**amd_card(10), **amd_card(2, vendor="0x10de\n"), "class/drm/card10-DP-1/status": "connected\n"})
    amd = Amd(FakeClock(), sysfs=tmp_path, load=_missing)
    (device,) = amd.devices()
    assert (device.uuid, device.name, device.driver) == ("AMD-9c7d10", "AMD GPU 0x744c", "amdgpu")
    assert (device.memory_bytes, device.numa_node) == (24 * GIB, None)
    sample = amd.sample(device)
    assert (sample.used_bytes, sample.free_bytes) == (6 * GIB, 18 * GIB)
    assert (sample.utilisation_percent, sample.memory_utilisation_percent) == (37, 12)
    assert (sample.power_mw, sample.power_limit_mw, sample.temperature_c) == (212_000, 303_000, 64)
    assert sample.absent["processes"] == "needs amdsmi, which is not installed"
    assert set(sample.absent) == {"energy_mj", "throttle", "reserved_bytes", "processes"}


def test_an_amd_gpu_without_sensors(tmp_path: Path) -> None:
    """A chip that tells what it draws now instead of an average, and one without hwmon."""
    now = amd_card(0, hwmon__hwmon5__power1_average=None, hwmon__hwmon5__power1_input="15000000\n")
    none = {name: text for name, text in amd_card(1).items() if "hwmon" not in name}
    write(tmp_path, {**now, **none})
    amd = Amd(FakeClock(), sysfs=tmp_path, load=_missing)
    first, second = amd.devices()
    assert amd.sample(first).power_mw == 15_000
    assert amd.sample(second).absent["power_mw"] == "no hwmon"


class StandInAmdsmi:
    """Answers like AMD's amdsmi, of which there is none without ROCm: one card, by its PCI address."""

    def __init__(self, address: str, listed: Any) -> None:
        self._address = address
        self._listed = listed
        self.is_open = False

    def amdsmi_init(self) -> None:
        """Begin."""
        self.is_open = True

    def amdsmi_shut_down(self) -> None:
        """End."""
        self.is_open = False

    def amdsmi_get_processor_handles(self) -> list[str]:
        """All cards."""
        return ["card"]

    def amdsmi_get_gpu_device_bdf(self, card: str) -> str:
        """The PCI address."""
        assert card == "card"
        return self._address

    def amdsmi_get_gpu_asic_info(self, card: str) -> dict[str, str]:
        """What the chip is."""
        assert card == "card"
        return {"market_name": "Radeon RX 7900 XTX"}

    def amdsmi_get_gpu_process_list(self, card: str) -> Any:
        """Programs on it."""
        assert card == "card"
        if isinstance(self._listed, Exception):
            raise self._listed
        return self._listed


def test_amdsmi_names_cards_and_programs(tmp_path: Path) -> None:
    """Where it is installed; a card that it does not know, or a failure of its own, is a reason."""
    write(tmp_path, {**amd_card(0), **amd_card(1)})
    listed = [{"pid": pid, "memory_usage": {"vram_mem": size}} for pid, size in ((7, GIB), (8, 3 * GIB))]
    smi = StandInAmdsmi("0000:03:00.0", listed)
    amd = Amd(FakeClock(), sysfs=tmp_path, load=lambda name: smi if name == "amdsmi" else _missing(name))
    known, unknown = amd.devices()
    assert (known.name, unknown.name) == ("Radeon RX 7900 XTX", "AMD GPU 0x744c")
    assert amd.sample(known).processes == (
        DeviceProcess(pid=8, used_bytes=3 * GIB),
        DeviceProcess(pid=7, used_bytes=GIB),
    )
    assert amd.sample(unknown).absent["processes"] == "amdsmi does not know this GPU"
    smi._listed = RuntimeError("AMDSMI_STATUS_NO_PERM")
    assert amd.sample(known).absent["processes"] == "amdsmi: AMDSMI_STATUS_NO_PERM"
    amd.close()
    assert not smi.is_open


def test_an_intel_npu(tmp_path: Path) -> None:
    """Utilisation is busy time over time; what OpenVINO alone tells needs OpenVINO."""
    write(tmp_path, accelerator(0, **INTEL_NPU))
    clock = FakeClock()
    npu = Npu(clock, sysfs=tmp_path, load=_missing)
    (device,) = npu.devices()
    assert (device.kind, device.vendor, device.name, device.memory_bytes) == ("npu", "intel", "Intel NPU", None)
    assert device.absent["memory_bytes"] == "needs OpenVINO, which is not installed"
    assert npu.sample(device).absent["utilisation_percent"] == "needs two readings of npu_busy_time_us"
    clock.advance(timedelta(milliseconds=500))
    assert npu.sample(device).absent["utilisation_percent"] == "npu_busy_time_us may be read once a second"
    clock.advance(timedelta(milliseconds=1500))
    write(tmp_path, accelerator(0, npu_busy_time_us="1500000\n"))
    sample = npu.sample(device)
    assert (sample.utilisation_percent, sample.used_bytes, sample.free_bytes) == (25, GIB, None)


def test_openvino_names_an_intel_npu(tmp_path: Path) -> None:
    """Its name and memory, where OpenVINO lists one NPU; a stand-in answers for OpenVINO, which is not installed."""
    write(tmp_path, accelerator(0, **INTEL_NPU))
    told = {"FULL_DEVICE_NAME": "Intel(R) AI Boost", "NPU_DEVICE_TOTAL_MEM_SIZE": 16 * GIB}
    core = SimpleNamespace(available_devices=["CPU", "NPU"], get_property=lambda _, key: told[key])
    npu = Npu(FakeClock(), sysfs=tmp_path, load=lambda _: SimpleNamespace(Core=lambda: core))
    (device,) = npu.devices()
    assert (device.name, device.memory_bytes) == ("Intel(R) AI Boost", 16 * GIB)
    assert npu.sample(device).free_bytes == 15 * GIB
    core.available_devices = ["NPU.0", "NPU.1"]
    assert npu.devices()[0].absent["memory_bytes"] == "OpenVINO lists 2 NPUs"


def test_amds_and_other_npus(tmp_path: Path) -> None:
    """By name; one that nobody here knows is listed with its vendor's number, by the link to its driver."""
    write(tmp_path, {**accelerator(0, **AMD_NPU), **accelerator(1, vendor="0x1da3\n")})
    driver = tmp_path / "bus" / "pci" / "drivers" / "habanalabs"
    driver.mkdir(parents=True)
    (tmp_path / "class/accel/accel1/device/driver").symlink_to(driver)
    npu = Npu(FakeClock(), sysfs=tmp_path, load=_missing)
    strix, gaudi = npu.devices()
    assert (strix.vendor, strix.name, strix.driver) == ("amd", "NPU Strix", "amdxdna")
    assert (gaudi.vendor, gaudi.driver) == ("0x1da3", "habanalabs")
    assert gaudi.absent["memory_bytes"] == "habanalabs is not known to this server"
    assert npu.sample(strix).absent["utilisation_percent"] == "amdxdna does not tell"


def test_the_host(tmp_path: Path) -> None:
    """Its memory, cores, sensor and energy counter; utilisation since the last look."""
    proc(tmp_path)
    write(
        tmp_path,
        {
            "class/hwmon/hwmon0/name": "nvme\n",
            "class/hwmon/hwmon1/name": "coretemp\n",
            "class/hwmon/hwmon1/temp1_input": "47000\n",
            "class/powercap/intel-rapl:0/energy_uj": "5000000\n",
            "class/powercap/intel-rapl:1/energy_uj": "1000000\n",
            "class/powercap/intel-rapl:0:0/energy_uj": "999\n",
        },
    )
    host = Host(FakeClock(), proc=tmp_path, sysfs=tmp_path)
    (device,) = host.devices()
    assert (device.kind, device.vendor, device.name) == ("cpu", "intel", "Xeon 0")
    assert (device.cores, device.memory_bytes) == (2, 32 * GIB)
    first = host.sample(device)
    assert (first.used_bytes, first.free_bytes) == (8 * GIB, 24 * GIB)
    assert (first.temperature_c, first.energy_mj) == (47, 6_000)
    assert first.absent["utilisation_percent"] == "needs two readings"
    proc(tmp_path, stat="cpu  160 0 115 715 110 0 0 0 0 0\ncpu0 1 1 1 1 1\ncpu1 1 1 1 1 1\n")
    assert host.sample(device).utilisation_percent == 75


@pytest.mark.parametrize(
    ("groups", "cores", "total", "free"),
    [
        pytest.param({}, 2, 32, 24, id="none"),
        pytest.param({"self/cgroup": "0::/\n", "fs/cgroup/memory.max": "max\n"}, 2, 32, 24, id="no limit"),
        pytest.param(
            {
                "self/cgroup": "0::/pod/box\n",
                "fs/cgroup/pod/memory.max": f"{8 * GIB}\n",
                "fs/cgroup/pod/memory.current": f"{5 * GIB}\n",
                "fs/cgroup/pod/memory.stat": f"anon 5\ninactive_file {2 * GIB}\n",
                "fs/cgroup/pod/box/memory.max": "max\n",
                "fs/cgroup/pod/box/cpu.max": "50000 100000\n",
            },
            1, 8, 5, id="version 2, limited by the group around it",
        ),
        pytest.param(
            {
                "self/cgroup": "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n",
                "fs/cgroup/memory/memory.limit_in_bytes": f"{4 * GIB}\n",
                "fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
                "fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
            },
            2, 4, 3, id="version 1, as seen from within a container",
        ),
        pytest.param(
            {"self/cgroup": "4:memory:/\n", "fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"},
            2, 32, 24, id="version 1, no limit",
        ),
    ],
)  # fmt: skip
def test_the_limits_of_a_container_are_the_hosts(
    tmp_path: Path, groups: dict[str, str], cores: int, total: int, free: int
) -> None:
    """Whoever limits most counts, cache can be had again, and there is never more than the host has."""
    write(proc(tmp_path), groups)
    host = Host(FakeClock(), proc=tmp_path, sysfs=tmp_path)
    (device,) = host.devices()
    assert (device.cores, device.memory_bytes) == (cores, total * GIB)
    sample = host.sample(device)
    assert (sample.free_bytes, sample.used_bytes) == (free * GIB, (total - free) * GIB)


def test_this_machine_has_a_host() -> None:
    """For real: its own /proc and /sys."""
    host = Host(SystemClock())
    (device,) = host.devices()
    sample = host.sample(device)
    assert device.memory_bytes is not None
    assert sample.free_bytes is not None
    assert 0 < sample.free_bytes < device.memory_bytes
    assert device.cores is not None
    assert 1 <= device.cores <= len(os.sched_getaffinity(0))


def test_a_machine_without_any_of_it(tmp_path: Path) -> None:
    """Says so, each in its way."""
    for provider, reason in (
        (Amd(FakeClock(), sysfs=tmp_path), "no AMD GPU"),
        (Npu(FakeClock(), sysfs=tmp_path), "no NPU"),
        (Host(FakeClock(), proc=tmp_path, sysfs=tmp_path), "cpuinfo: No such file"),
    ):
        with pytest.raises(Absent, match=reason):
            provider.devices()
