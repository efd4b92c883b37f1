"""NVIDIA GPUs and their MIG slices, through NVML (`pynvml`; facts from nvidia-ml-py 13.615.71 and the NVML manual).

NVML is a shared library that comes with the driver, so neither need be there: a machine without it raises Absent. Its
functions come and go with driver versions (a missing one is "Function Not Found") and with the kind of GPU ("Not
Supported"); each is a reading that is None with that reason. Units are NVML's own: bytes, percent, milliwatts,
millijoules since the driver was loaded, Celsius.

In MIG mode the GPU is divided: its slices are devices of their own with memory and programs, while power, temperature
and utilisation are told for the whole GPU, or not at all (utilisation: "not currently supported" on MIG, NVML manual).

XID faults are events. They are collected without waiting whenever a device is sampled; the driver queues them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pynvml  # type: ignore[import-untyped]
import structlog

from server.clock import Clock
from server.hardware import nvml_links
from server.hardware.devices import DEVICES_MAX, PROCESSES_MAX, Absent, Device, DeviceProcess, Sample
from server.hardware.readings import Readings
from server.hardware.sysfs import numa_node

# The last stands for names in bytes that are no text.
ERRORS = (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError, ValueError)
XIDS_MAX = 64
# Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h, nvmlClocksEventReasons).
REASONS = {
    0x01: "gpu_idle",
    0x02: "applications_clocks_setting",
    0x04: "sw_power_cap",
    0x08: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}

Handle: TypeAlias = Any

log = structlog.get_logger(__name__)


class Nvml:
    """The provider.

    Args:
        sysfs: where /sys is, for NUMA nodes.
    """

    name = "nvml"

    def __init__(self, clock: Clock, *, sysfs: Path = Path("/sys")) -> None:
        self._clock = clock
        self._sysfs = sysfs
        self._is_open = False
        self._handles: dict[str, Handle] = {}
        self._closed: dict[int, str] = {}
        self._events: Any = None
        self._no_events = ""
        self._watched: dict[str, str] = {}
        self._xids: dict[str, list[int]] = {}

    def devices(self) -> Sequence[Device]:
        """All GPUs, each followed by its MIG slices. Raises Absent without a driver."""
        self._open()
        try:
            count = pynvml.nvmlDeviceGetCount()
        except ERRORS as error:
            self.close()
            raise Absent(str(error)) from None
        handles: dict[str, Handle] = {}
        found: list[Device] = []
        whole: list[tuple[Device, Handle]] = []
        for index in range(min(count, DEVICES_MAX)):
            if (opened := self._gpu(index)) is None:
                continue
            device, handle = opened
            whole.append(opened)
            self._watch(device.uuid, handle)
            for one, its in (opened, *(_slices(device, handle) if device.is_divided else ())):
                found.append(one)
                handles[one.uuid] = its
        self._handles = handles
        return nvml_links.join(found[:DEVICES_MAX], whole)

    def sample(self, device: Device) -> Sample:
        """What one of them is doing."""
        handle = self._handles.get(device.uuid)
        if handle is None:
            return Sample(uuid=device.uuid, at=self._clock.now(), absent={"device": "not there any more"})
        readings = Readings(*ERRORS)
        memory = _memory(handle, readings)
        rates = readings.take("utilisation_percent", lambda: _rates(handle))
        if rates is None:
            readings.lacks(readings.absent["utilisation_percent"], "memory_utilisation_percent")
        power_mw = readings.take("power_mw", lambda: _number(pynvml.nvmlDeviceGetPowerUsage(handle)))
        limit_mw = readings.take("power_limit_mw", lambda: _number(pynvml.nvmlDeviceGetEnforcedPowerLimit(handle)))
        energy_mj = readings.take("energy_mj", lambda: _number(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)))
        used, reserved, free = memory
        return Sample(
            uuid=device.uuid,
            at=self._clock.now(),
            used_bytes=used,
            reserved_bytes=reserved,
            free_bytes=free,
            utilisation_percent=None if rates is None else rates[0],
            memory_utilisation_percent=None if rates is None else rates[1],
            power_mw=power_mw,
            power_limit_mw=limit_mw,
            energy_mj=energy_mj,
            temperature_c=readings.take("temperature_c", lambda: _temperature(handle)),
            throttle=readings.take("throttle", lambda: _throttle(handle)),
            processes=_processes(handle, readings),
            xids=self._faults(device, readings),
            absent=readings.absent,
        )

    def close(self) -> None:
        """Let go of NVML; `devices` opens it again."""
        if self._is_open:
            self._is_open = False
            for free in (lambda: pynvml.nvmlEventSetFree(self._events), pynvml.nvmlShutdown):
                _quietly(free)
        self._events = None
        self._no_events = ""
        self._handles = {}
        self._watched = {}

    def _open(self) -> None:
        if self._is_open:
            return
        try:
            pynvml.nvmlInit()
        except (*ERRORS, OSError) as error:
            raise Absent(str(error)) from None
        self._is_open = True
        try:
            self._events = pynvml.nvmlEventSetCreate()
        except ERRORS as error:
            self._no_events = str(error)

    def _gpu(self, index: int) -> tuple[Device, Handle] | None:
        """One GPU; None where it cannot even be named, which is told once."""
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
        except ERRORS as error:
            if self._closed.get(index) != str(error):
                log.warning("a GPU cannot be opened", index=index, reason=str(error))
            self._closed[index] = str(error)
            return None
        self._closed.pop(index, None)
        readings = Readings(*ERRORS)
        address = readings.take("pci_address", lambda: _address(handle))
        device = Device(
            provider=self.name,
            uuid=uuid,
            kind="gpu",
            vendor="nvidia",
            name=readings.take("name", lambda: _text(pynvml.nvmlDeviceGetName(handle))) or "NVIDIA GPU",
            memory_bytes=readings.take("memory_bytes", _total(handle)),
            driver=readings.take("driver", lambda: _text(pynvml.nvmlSystemGetDriverVersion())),
            pci_address=address,
            numa_node=numa_node(self._sysfs / "bus" / "pci" / "devices" / address) if address else None,
            compute_capability=readings.take("compute_capability", lambda: _capability(handle)),
            # Those that cannot be divided answer "Not Supported", which is no news.
            is_divided=Readings(*ERRORS).take("mig", lambda: pynvml.nvmlDeviceGetMigMode(handle)[0] == 1) or False,
            absent=readings.absent,
        )
        return device, handle

    def _watch(self, uuid: str, handle: Handle) -> None:
        """Have its faults queued, once."""
        if uuid in self._watched or self._events is None:
            return
        try:
            if not pynvml.nvmlDeviceGetSupportedEventTypes(handle) & pynvml.nvmlEventTypeXidCriticalError:
                self._watched[uuid] = "this GPU reports no XID events"
                return
            pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, self._events)
            self._watched[uuid] = ""
        except ERRORS as error:
            self._watched[uuid] = str(error)

    def _faults(self, device: Device, readings: Readings) -> tuple[int, ...]:
        """The XIDs of one device since the last time. A slice has none: they are its GPU's."""
        if device.kind == "mig":
            return ()
        if reason := self._no_events or self._watched.get(device.uuid, ""):
            readings.lacks(reason, "xids")
            return ()
        try:
            for _ in range(XIDS_MAX):
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
                waiting = self._xids.setdefault(_text(pynvml.nvmlDeviceGetUUID(event.device)), [])
                if event.eventType & pynvml.nvmlEventTypeXidCriticalError and len(waiting) < XIDS_MAX:
                    waiting.append(int(event.eventData))
        except pynvml.NVMLError_Timeout:
            pass  # that was all
        except ERRORS as error:
            readings.lacks(str(error), "xids")
        return tuple(self._xids.pop(device.uuid, ()))


def _slices(gpu: Device, handle: Handle) -> list[tuple[Device, Handle]]:
    """The MIG slices of a divided GPU. Their numbers have gaps."""
    found: list[tuple[Device, Handle]] = []
    counted = Readings(*ERRORS).take("count", lambda: int(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle))) or 0
    for number in range(min(counted, DEVICES_MAX)):
        try:
            its = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
            uuid = _text(pynvml.nvmlDeviceGetUUID(its))
        except ERRORS:
            continue
        readings = Readings(*ERRORS)
        device = Device(
            provider=gpu.provider,
            uuid=uuid,
            kind="mig",
            vendor=gpu.vendor,
            name=readings.take("name", _asked(pynvml.nvmlDeviceGetName, its)) or f"{gpu.name} MIG",
            memory_bytes=readings.take("memory_bytes", _total(its)),
            driver=gpu.driver,
            pci_address=gpu.pci_address,
            numa_node=gpu.numa_node,
            compute_capability=gpu.compute_capability,
            parent=gpu.uuid,
            absent=readings.absent,
        )
        found.append((device, its))
    return found


def _memory(handle: Handle, readings: Readings) -> tuple[int | None, int | None, int | None]:
    """Used, reserved and free bytes; drivers before 510 count what is reserved as used."""
    try:
        second = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        return int(second.used), int(second.reserved), int(second.free)
    except ERRORS as error:
        readings.lacks(str(error), "reserved_bytes")
    first = readings.take("used_bytes", lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    if first is None:
        readings.lacks(readings.absent["used_bytes"], "free_bytes")
        return None, None, None
    return int(first.used), None, int(first.free)


def _rates(handle: Handle) -> tuple[int, int]:
    """Parts of the time in which a kernel ran, and in which memory was read or written, in percent."""
    rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
    if max(rates.gpu, rates.memory) > 100:  # noqa: PLR2004 (per cent)
        raise Absent("no value")
    return int(rates.gpu), int(rates.memory)


def _temperature(handle: Handle) -> int:
    """By the function of today; by the one that goes away with CUDA 14 where a driver lacks that."""
    try:
        return int(pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU))
    except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_ArgumentVersionMismatch):
        return int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))


def _throttle(handle: Handle) -> tuple[str, ...]:
    """Names of what sets the clocks; drivers before 535 know the function by its old name."""
    try:
        mask = int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    except pynvml.NVMLError_FunctionNotFound:
        mask = int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
    named = [name for bit, name in REASONS.items() if mask & bit]
    unknown = mask & ~sum(REASONS)
    return (*named, *([f"unknown_{unknown:#x}"] if unknown else []))


def _processes(handle: Handle, readings: Readings) -> tuple[DeviceProcess, ...] | None:
    """Programs that compute, those behind MPS included, by pid; the largest first."""
    used: dict[int, int | None] = {}
    reasons: list[str] = []
    for kind in ("Compute", "MPSCompute"):
        try:
            listed = _listed(handle, kind)
        except ERRORS as error:
            reasons.append(str(error))
            continue
        for one in listed:
            known, new = used.get(int(one.pid)), one.usedGpuMemory
            used[int(one.pid)] = known if new is None else max(known or 0, int(new))
    if reasons:
        readings.lacks(reasons[0], *(["processes"] if len(reasons) == 2 else ["mps_processes"]))  # noqa: PLR2004
    if len(reasons) == 2:  # noqa: PLR2004 (both kinds)
        return None
    found = sorted(used.items(), key=lambda item: (-(item[1] or 0), item[0]))
    return tuple(DeviceProcess(pid=pid, used_bytes=size) for pid, size in found[:PROCESSES_MAX])


def _listed(handle: Handle, kind: str) -> list[Any]:
    """By the third form of the call; by the second for drivers before 510."""
    try:
        return list(getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses_v3")(handle))
    except pynvml.NVMLError_FunctionNotFound:
        return list(getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses_v2")(handle))


def _address(handle: Handle) -> str:
    pci = pynvml.nvmlDeviceGetPciInfo(handle)
    return f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0"


def _capability(handle: Handle) -> str:
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return f"{major}.{minor}"


def _number(value: int) -> int:
    """NVML writes all bits one where it has no value."""
    if value in (0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF):
        raise Absent("no value")
    return int(value)


def _total(handle: Handle) -> Callable[[], int]:
    return lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)


def _asked(call: Callable[[Handle], Any], handle: Handle) -> Callable[[], str]:
    return lambda: _text(call(handle))


def _text(value: str | bytes) -> str:
    """Without NULs, which Postgres does not take."""
    return (value.decode(errors="replace") if isinstance(value, bytes) else value).replace("\0", "").strip()


def _quietly(call: Callable[[], object]) -> None:
    """At the end, when what fails fails for good reasons."""
    try:
        call()
    except (*ERRORS, TypeError):  # ctypes' for an event set that is none
        return
