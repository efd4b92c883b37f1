"""NPUs, by Linux' class of compute accelerators (/sys/class/accel), and by OpenVINO for what only that tells.

A device's vendor number and driver say what it is: 0x1022 with amdxdna (AMD Ryzen AI), 0x8086 with intel_vpu (Intel).
Others that use the class are listed with what is known of them.

intel_vpu counts npu_busy_time_us, "the time that the device spent executing jobs", not to be read more often than once
a second, and, since Linux 6.15, npu_memory_utilization, the bytes in use (drivers/accel/ivpu/ivpu_sysfs.c). amdxdna has
vbnv, its name, and fw_version (drivers/accel/amdxdna/amdxdna_sysfs.c). Both use the host's memory.

OpenVINO (properties FULL_DEVICE_NAME and NPU_DEVICE_TOTAL_MEM_SIZE; docs.openvino.ai) is imported where there is one
Intel NPU and it is installed: with several nobody says which of its devices is which file.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.clock import Clock
from server.hardware.devices import DEVICES_MAX, Absent, Device, Sample
from server.hardware.readings import Import, Readings
from server.hardware.sysfs import host_mark, numa_node, numbered, read_number, read_text, text_or_none, uevent

VENDORS = {"0x1022": "amd", "0x8086": "intel"}
INTEL_DRIVER, AMD_DRIVER = "intel_vpu", "amdxdna"
BETWEEN_MS_MIN = 1_000
UNTOLD = ("reserved_bytes", "memory_utilisation_percent", "power_mw", "power_limit_mw", "energy_mj", "temperature_c")


class Npu:
    """The provider.

    Args:
        sysfs: where /sys is.
        proc: where /proc is.
        load: imports a module by its name.
    """

    name = "npu"

    def __init__(
        self,
        clock: Clock,
        *,
        sysfs: Path = Path("/sys"),
        proc: Path = Path("/proc"),
        load: Import = importlib.import_module,
    ) -> None:
        self._clock = clock
        self._sysfs = sysfs
        self._proc = proc
        self._load = load
        self._core: Any = None
        self._no_core = ""
        self._folders: dict[str, Path] = {}
        # When its busy time was read last, in ms of our clock, and what it was.
        self._busy: dict[str, tuple[int, int]] = {}

    def devices(self) -> Sequence[Device]:
        """All accelerators of the class. Raises Absent where there is none."""
        folders = [accel / "device" for accel in numbered(self._sysfs / "class" / "accel", "accel")][:DEVICES_MAX]
        if not folders:
            raise Absent("no NPU in /sys/class/accel")
        found = [(self._device(folder), folder) for folder in folders]
        self._folders = {device.uuid: folder for device, folder in found}
        return [device for device, _ in found]

    def sample(self, device: Device) -> Sample:
        """What one of them is doing."""
        readings = Readings()
        folder = self._folders.get(device.uuid)
        if folder is None:
            return Sample(uuid=device.uuid, at=self._clock.now(), absent={"device": "not there any more"})
        driver = device.driver or "the driver"
        readings.lacks(f"{driver} does not tell", *UNTOLD, "throttle", "processes")
        used = busy = free = None
        if device.driver == INTEL_DRIVER:
            used = readings.take("used_bytes", lambda: read_number(folder / "npu_memory_utilization"))
            busy = readings.take("utilisation_percent", lambda: self._utilisation(device.uuid, folder))
        else:
            readings.lacks(f"{driver} does not tell", "used_bytes", "utilisation_percent")
        if used is not None and device.memory_bytes is not None:
            free = max(0, device.memory_bytes - used)
        else:
            readings.lacks("used or total memory is not known", "free_bytes")
        return Sample(
            uuid=device.uuid,
            at=self._clock.now(),
            used_bytes=used,
            free_bytes=free,
            utilisation_percent=busy,
            absent=readings.absent,
        )

    def close(self) -> None:
        """Let go of OpenVINO."""
        self._core = None

    def _device(self, folder: Path) -> Device:
        readings = Readings()
        described = uevent(folder)
        address = described.get("PCI_SLOT_NAME")
        number = text_or_none(folder / "vendor")
        driver = described.get("DRIVER") or _linked(folder)
        vendor = VENDORS.get(number or "", number or "unknown")
        name, memory_bytes = f"{vendor.upper() if vendor == 'amd' else vendor.capitalize()} NPU", None
        if driver == AMD_DRIVER:
            name = readings.take("name", lambda: read_text(folder / "vbnv")) or name
            readings.lacks("amdxdna does not tell; it uses the host's memory", "memory_bytes")
        elif driver == INTEL_DRIVER:
            name = readings.take("name", lambda: str(self._asked("FULL_DEVICE_NAME"))) or name
            memory_bytes = readings.take("memory_bytes", lambda: int(self._asked("NPU_DEVICE_TOTAL_MEM_SIZE")))
        else:
            readings.lacks(f"{driver or 'the driver'} is not known to this server", "memory_bytes")
        return Device(
            provider=self.name,
            uuid=f"NPU-{host_mark(self._proc)}-{address or folder.parent.name}",
            kind="npu",
            vendor=vendor,
            name=name,
            memory_bytes=memory_bytes,
            memory_is_shared=driver in (AMD_DRIVER, INTEL_DRIVER),
            driver=driver,
            pci_address=address,
            numa_node=numa_node(folder),
            absent=readings.absent,
        )

    def _utilisation(self, uuid: str, folder: Path) -> int:
        """Busy time over time, since the last reading."""
        now_ms = self._clock.monotonic_ms()
        then = self._busy.get(uuid)
        if then is not None and now_ms - then[0] < BETWEEN_MS_MIN:
            raise Absent("npu_busy_time_us may be read once a second")
        busy_us = read_number(folder / "npu_busy_time_us")
        self._busy[uuid] = (now_ms, busy_us)
        if then is None or busy_us < then[1]:
            raise Absent("needs two readings of npu_busy_time_us")
        return min(100, (busy_us - then[1]) // (10 * (now_ms - then[0])))

    def _asked(self, key: str) -> Any:  # noqa: ANN401 (OpenVINO's properties have types of their own)
        """A property of the one NPU, from OpenVINO. Raises Absent."""
        if self._core is None and not self._no_core:
            try:
                self._core = self._load("openvino").Core()
            except ImportError:
                self._no_core = "needs OpenVINO, which is not installed"
            except Exception as error:  # noqa: BLE001 (a foreign library; sysfs does without)
                self._no_core = f"OpenVINO: {error}"
        if self._core is None:
            raise Absent(self._no_core)
        try:
            found = [one for one in self._core.available_devices if one.partition(".")[0] == "NPU"]
            if len(found) == 1:
                return self._core.get_property(found[0], key)
        except Exception as error:
            raise Absent(f"OpenVINO: {error}") from error
        raise Absent(f"OpenVINO lists {len(found)} NPUs")


def _linked(folder: Path) -> str | None:
    """The driver by the symbolic link to it."""
    try:
        return (folder / "driver").readlink().name
    except OSError:
        return None
