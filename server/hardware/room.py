"""What the residency of models asks of the hardware: which memory there is, how much of it is free, what a file takes.

The residency lives in another room (server/engines) and knows nothing of drivers and headers; what it gets are the
structs of server/messages.py.
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from server.hardware import headers
from server.hardware.devices import Device, Link, Sample, Snapshot, free_bytes, topology_of
from server.hardware.memory import MemoryEstimate, estimate, headroom_bytes
from server.hardware.shapes import UnreadableModel
from server.messages import DeviceMemory, ModelMemory


def is_accelerator(device: Device) -> bool:
    """Whether models can be placed on it: a GPU or a slice of one that has memory of its own."""
    return (
        device.kind in {"gpu", "mig"}
        and not device.is_divided
        and not device.memory_is_shared
        and bool(device.memory_bytes)
    )


def memory_of(snapshot: Snapshot) -> dict[str, DeviceMemory]:
    """The memory of every device that models can be on, by uuid: GPUs, their slices, and the host."""
    return {
        device.uuid: _memory(device, snapshot)
        for device in snapshot.devices
        if is_accelerator(device) or device.kind == "cpu"
    }


def accelerators_of(snapshot: Snapshot) -> list[Device]:
    """The devices of the snapshot that models can be placed on, but for the host."""
    return [device for device in snapshot.devices if is_accelerator(device)]


def host_of(snapshot: Snapshot) -> Device | None:
    """The host itself, where a provider tells of it."""
    return next((device for device in snapshot.devices if device.kind == "cpu"), None)


def links_of(devices: Sequence[Device]) -> dict[frozenset[str], Link]:
    """The link of each two devices, by uuid, as `placement.place` wants it."""
    topology = topology_of(devices)
    return {
        frozenset((one.uuid, other.uuid)): topology.between(here, there)
        for (here, one), (there, other) in combinations(enumerate(devices), 2)
    }


def estimate_of(
    path: Path, *, context_tokens: int, slots: int, cache_type: str = "f16", on_cpu: bool = False
) -> MemoryEstimate | None:
    """The estimate for the model at `path`; None where its header cannot be followed.

    Raises:
        InvalidRequest: a type, context or number of slots that there is not.
    """
    try:
        return estimate(
            headers.read(path),
            context_tokens=context_tokens,
            slots=slots,
            cache_type=cache_type,
            accelerator=not on_cpu,
        )
    except UnreadableModel:
        return None


def estimated(
    path: Path, *, context_tokens: int, slots: int, cache_type: str = "f16", on_cpu: bool = False
) -> ModelMemory | None:
    """What the model at `path` takes; None where its header cannot be followed. Reads the file's header.

    Raises:
        InvalidRequest: a type, context or number of slots that there is not.
    """
    found = estimate_of(path, context_tokens=context_tokens, slots=slots, cache_type=cache_type, on_cpu=on_cpu)
    return None if found is None else ModelMemory(found.expected_bytes, found.high_bytes)


def _memory(device: Device, snapshot: Snapshot) -> DeviceMemory:
    sample, total = snapshot.samples.get(device.uuid), device.memory_bytes
    free = free_bytes(snapshot, device) if is_accelerator(device) else None
    return DeviceMemory(
        uuid=device.uuid,
        total_bytes=total,
        usable_bytes=None if total is None else max(0, total - headroom_bytes(total)),
        free_bytes=free,
        used_bytes=None if sample is None else sample.used_bytes,
        processes=_processes(sample),
    )


def _processes(sample: Sample | None) -> dict[int, int] | None:
    if sample is None or sample.processes is None:
        return None
    told = {process.pid: process.used_bytes for process in sample.processes}
    return {pid: used for pid, used in told.items() if used is not None} if None not in told.values() else None
