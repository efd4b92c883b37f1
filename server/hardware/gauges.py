"""What Prometheus is told of devices. Labels are the devices' uuids, of which there are at most DEVICES_MAX."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge

from server.hardware.devices import Sample, Snapshot
from server.hardware.periods import SLOWDOWNS
from server.telemetry import REGISTRY

DEVICE = Gauge(
    "wirthforge_hardware_device_info",
    "What a device is; always 1.",
    ("device", "kind", "vendor", "name"),
    registry=REGISTRY,
)
MEMORY = Gauge("wirthforge_hardware_memory_bytes", "Memory that a device has, in all.", ("device",), registry=REGISTRY)
USED = Gauge("wirthforge_hardware_memory_used_bytes", "Memory in use.", ("device",), registry=REGISTRY)
FREE = Gauge(
    "wirthforge_hardware_memory_free_bytes", "What a model can be given of it.", ("device",), registry=REGISTRY
)
UTILISATION = Gauge(
    "wirthforge_hardware_utilisation_ratio", "Part of the time that it is busy, 0 to 1.", ("device",), registry=REGISTRY
)
POWER = Gauge("wirthforge_hardware_power_watts", "Power drawn.", ("device",), registry=REGISTRY)
POWER_LIMIT = Gauge("wirthforge_hardware_power_limit_watts", "Power limit in force.", ("device",), registry=REGISTRY)
ENERGY = Gauge(
    "wirthforge_hardware_energy_joules", "Energy counter of the driver; only differences mean something.", ("device",),
    registry=REGISTRY,
)  # fmt: skip
TEMPERATURE = Gauge("wirthforge_hardware_temperature_celsius", "How hot it is.", ("device",), registry=REGISTRY)
THROTTLED = Gauge(
    "wirthforge_hardware_throttled", "1 while heat or power hold clocks down.", ("device",), registry=REGISTRY
)
PROVIDER_UP = Gauge(
    "wirthforge_hardware_provider_up",
    "Whether a provider that has devices, or should, answers.",
    ("provider",),
    registry=REGISTRY,
)
XIDS = Counter(
    "wirthforge_hardware_xid_total", "Faults that the NVIDIA driver reported.", ("device", "xid"), registry=REGISTRY
)

# NVIDIA numbers its faults from 1 to 172 (XID Errors, r580); a plugin may tell any number, and labels stay for ever.
XID_MAX = 255

READINGS: dict[Gauge, Callable[[Sample], float | None]] = {
    USED: lambda sample: sample.used_bytes,
    FREE: lambda sample: sample.free_bytes,
    UTILISATION: lambda sample: _scaled(sample.utilisation_percent, 100),
    POWER: lambda sample: _scaled(sample.power_mw, 1000),
    POWER_LIMIT: lambda sample: _scaled(sample.power_limit_mw, 1000),
    ENERGY: lambda sample: _scaled(sample.energy_mj, 1000),
    TEMPERATURE: lambda sample: sample.temperature_c,
    THROTTLED: lambda sample: None if sample.throttle is None else not SLOWDOWNS.isdisjoint(sample.throttle),
}


def show(snapshot: Snapshot) -> None:
    """Replace all that was told. What is not known has no line, since a zero would be a lie."""
    for gauge in (DEVICE, MEMORY, PROVIDER_UP, *READINGS):
        gauge.clear()
    for name in {device.provider for device in snapshot.devices} | set(snapshot.faults):
        PROVIDER_UP.labels(name).set(name not in snapshot.faults)
    for device in snapshot.devices:
        DEVICE.labels(device.uuid, device.kind, device.vendor, device.name).set(1)
        if device.memory_bytes is not None:
            MEMORY.labels(device.uuid).set(device.memory_bytes)
    for sample in snapshot.samples.values():
        _show_sample(sample)
    for device in snapshot.devices:
        # All of it belongs to its slices: none is free, and yet it is not full.
        if device.is_divided and device.uuid in snapshot.samples:
            FREE.remove(device.uuid)


def saw_xid(uuid: str, xid: int) -> None:
    """The driver reported a fault."""
    XIDS.labels(uuid, str(xid) if 0 <= xid <= XID_MAX else "other").inc()


def _show_sample(sample: Sample) -> None:
    for gauge, read in READINGS.items():
        if (value := read(sample)) is not None:
            gauge.labels(sample.uuid).set(value)


def _scaled(value: int | None, by: int) -> float | None:
    return None if value is None else value / by
