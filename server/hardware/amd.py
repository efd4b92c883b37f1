"""AMD GPUs, by the files of the amdgpu driver, and by amdsmi for what only that tells (names, programs).

Files below /sys/class/drm/card*/device, as the kernel documents them (Documentation/gpu/amdgpu/driver-misc.rst and
thermal.rst; read in Linux 6.6): mem_info_vram_total and _used in bytes, gpu_busy_percent, unique_id, product_name
(server boards), and hwmon with power1_average or power1_input and power1_cap in microwatts and temp1_input in
thousandths of a degree.
Energy and throttling stand in gpu_metrics alone, whose layout changes with the chip: not read, and said so.

amdsmi comes with ROCm, not with us; it is imported when there is an AMD GPU. Its process list gives `vram_mem` in bytes
(py-interface/amdsmi_interface.py), and asks for a second between calls, which the monitor's rounds keep.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.clock import Clock
from server.hardware.devices import DEVICES_MAX, PROCESSES_MAX, Absent, Device, DeviceProcess, Sample
from server.hardware.readings import Import, Readings
from server.hardware.sysfs import host_mark, numa_node, numbered, read_number, text_or_none, uevent

VENDOR = "0x1002"
MICRO = 1_000
IN_GPU_METRICS = "amdgpu tells it in gpu_metrics only, which is not read"
NO_AMDSMI = "needs amdsmi, which is not installed"


class Amd:
    """The provider.

    Args:
        sysfs: where /sys is.
        proc: where /proc is.
        load: imports a module by its name.
    """

    name = "amd"

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
        self._folders: dict[str, Path] = {}
        self._smi: Any = None
        self._no_smi = ""
        self._cards: dict[str, Any] = {}

    def devices(self) -> Sequence[Device]:
        """All AMD GPUs. Raises Absent where there is none."""
        folders = [card / "device" for card in numbered(self._sysfs / "class" / "drm", "card") if _is_amd(card)]
        if not folders:
            raise Absent("no AMD GPU in /sys/class/drm")
        self._open_smi()
        found = {}
        for folder in folders[:DEVICES_MAX]:
            device = self._device(folder)
            found[device.uuid] = (device, folder)
        self._folders = {uuid: folder for uuid, (_, folder) in found.items()}
        return [device for device, _ in found.values()]

    def sample(self, device: Device) -> Sample:
        """What one of them is doing."""
        folder = self._folders.get(device.uuid)
        if folder is None:
            return Sample(uuid=device.uuid, at=self._clock.now(), absent={"device": "not there any more"})
        readings = Readings()
        used = readings.take("used_bytes", lambda: read_number(folder / "mem_info_vram_used"))
        total = device.memory_bytes
        if used is None or total is None:
            readings.lacks("used or total memory is not known", "free_bytes")
        hwmon = readings.take("hwmon", lambda: _hwmon(folder))
        readings.lacks(IN_GPU_METRICS, "energy_mj", "throttle")
        readings.lacks("amdgpu does not tell", "reserved_bytes")
        return Sample(
            uuid=device.uuid,
            at=self._clock.now(),
            used_bytes=used,
            free_bytes=None if used is None or total is None else max(0, total - used),
            utilisation_percent=readings.take("utilisation_percent", lambda: _percent(folder / "gpu_busy_percent")),
            memory_utilisation_percent=readings.take(
                "memory_utilisation_percent", lambda: _percent(folder / "mem_busy_percent")
            ),
            power_mw=readings.take("power_mw", lambda: _power_mw(hwmon)),
            power_limit_mw=readings.take("power_limit_mw", lambda: _of(hwmon, "power1_cap") // MICRO),
            temperature_c=readings.take("temperature_c", lambda: _of(hwmon, "temp1_input") // 1000),
            processes=readings.take("processes", lambda: self._processes(device)),
            absent=readings.absent,
        )

    def close(self) -> None:
        """Let go of amdsmi."""
        if self._smi is not None:
            Readings(Exception).take("close", self._smi.amdsmi_shut_down)
        self._smi = None
        self._cards = {}

    def _device(self, folder: Path) -> Device:
        readings = Readings()
        described = uevent(folder)
        address = described.get("PCI_SLOT_NAME")
        identity = text_or_none(folder / "unique_id") or f"{host_mark(self._proc)}-{address or folder.parent.name}"
        return Device(
            provider=self.name,
            uuid=f"AMD-{identity}",
            kind="gpu",
            vendor="amd",
            name=self._name(folder, address),
            memory_bytes=readings.take("memory_bytes", lambda: read_number(folder / "mem_info_vram_total")),
            driver=described.get("DRIVER"),
            pci_address=address,
            numa_node=numa_node(folder),
            absent=readings.absent,
        )

    def _name(self, folder: Path, address: str | None) -> str:
        """What amdsmi calls it, or the board, or the chip's number."""
        if (card := self._cards.get(address or "")) is not None:
            told = Readings(Exception).take("name", lambda: self._smi.amdsmi_get_gpu_asic_info(card)["market_name"])
            if isinstance(told, str) and told not in ("", "N/A"):
                return told
        number = text_or_none(folder / "device")
        return text_or_none(folder / "product_name") or (f"AMD GPU {number}" if number else "AMD GPU")

    def _open_smi(self) -> None:
        """Import amdsmi, once, and learn which of its cards is which by their PCI addresses."""
        if self._smi is not None or self._no_smi:
            return
        try:
            smi = self._load("amdsmi")
            smi.amdsmi_init()
            cards = {smi.amdsmi_get_gpu_device_bdf(card): card for card in smi.amdsmi_get_processor_handles()}
        except ImportError:
            self._no_smi = NO_AMDSMI
        except Exception as error:  # noqa: BLE001 (a foreign library; sysfs does without)
            self._no_smi = f"amdsmi: {error}"
        else:
            self._smi, self._cards = smi, cards

    def _processes(self, device: Device) -> tuple[DeviceProcess, ...]:
        card = self._cards.get(device.pci_address or "")
        if card is None:
            raise Absent(self._no_smi or "amdsmi does not know this GPU")
        try:
            listed = self._smi.amdsmi_get_gpu_process_list(card)
            found = [
                DeviceProcess(pid=int(one["pid"]), used_bytes=int(one["memory_usage"]["vram_mem"])) for one in listed
            ]
        except Exception as error:
            raise Absent(f"amdsmi: {error}") from error
        return tuple(sorted(found, key=lambda one: -(one.used_bytes or 0))[:PROCESSES_MAX])


def _is_amd(card: Path) -> bool:
    return text_or_none(card / "device" / "vendor") == VENDOR


def _hwmon(folder: Path) -> Path:
    for found in numbered(folder / "hwmon", "hwmon"):
        return found
    raise Absent("no hwmon")


def _of(hwmon: Path | None, file: str) -> int:
    if hwmon is None:
        raise Absent("no hwmon")
    return read_number(hwmon / file)


def _power_mw(hwmon: Path | None) -> int:
    """Older chips tell an average, newer ones what is drawn now."""
    try:
        return _of(hwmon, "power1_average") // MICRO
    except Absent:
        return _of(hwmon, "power1_input") // MICRO


def _percent(path: Path) -> int:
    number = read_number(path)
    if number > 100:  # noqa: PLR2004 (per cent)
        raise Absent(f"{path.name} is beyond 100")
    return number
