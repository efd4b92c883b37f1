"""Which device each embedded model goes on, and which of them start with the server.

    files ─► estimates ─► placement (server/hardware/placement.py) ─► what each process is shown of the devices

A box is a GPU, a group of GPUs that a model is spread over, or the host's memory. In the order in which models are
given each starts at once if its box still has room; the others are loaded when somebody wants them. A model that fits
on no GPU, even alone, stays in main memory, and one that is too large for that has it for itself: slow is better than
not at all. Only what the setting `models_memory_bytes` does not allow is not loaded.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from server.clock import Clock
from server.embedded import llama_devices
from server.embedded.llama_devices import Seen
from server.engines.gauge import budget_of
from server.hardware.devices import Device, Snapshot, free_bytes
from server.hardware.memory import GIB, GPU_CONTEXT_BYTES, HEADROOM_BYTES, HEADROOM_PERCENT, MemoryEstimate
from server.hardware.monitor import Monitor
from server.hardware.placement import Demand, Plan, place_in_turns
from server.hardware.providers import load as hardware_of
from server.hardware.room import accelerators_of, estimate_of, host_of, links_of, memory_of
from server.messages import ModelMemory


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model and its estimates; None where its header cannot be followed, and llama.cpp will say what is wrong."""

    name: str
    on_gpu: MemoryEstimate | None
    on_cpu: MemoryEstimate | None


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a model goes.

    Attributes:
        devices: by uuid; the host's where it stays in main memory; none where nobody knows the host.
        memory: what it takes there; None where nobody knows.
        environment: what its process is shown.
        on_cpu: it must not use a GPU that is there.
        is_started: it starts with the server.
        is_refused: the setting does not allow it.
        why: a sentence for people; empty where there was nothing to decide.
    """

    name: str
    devices: tuple[str, ...]
    memory: ModelMemory | None
    environment: Mapping[str, str] = field(default_factory=dict)
    on_cpu: bool = False
    is_started: bool = True
    is_refused: bool = False
    why: str = ""


async def look(clock: Clock) -> tuple[Snapshot, list[Seen]]:
    """The devices of this host, and those that llama.cpp sees; it is asked only where there is a GPU."""
    monitor = Monitor(hardware_of(clock), clock)
    try:
        snapshot = await monitor.look()
    finally:
        monitor.close()
    return snapshot, await llama_devices.ask() if accelerators_of(snapshot) else []


def wanted(files: Mapping[str, Path], *, context_tokens: int, slots: int) -> list[Wanted]:
    """The models of these files, by name; reads their headers."""
    return [
        Wanted(
            name,
            *(estimate_of(path, context_tokens=context_tokens, slots=slots, on_cpu=on_cpu) for on_cpu in (False, True)),
        )
        for name, path in files.items()
    ]


def spots(
    models: Sequence[Wanted],
    snapshot: Snapshot,
    seen: Sequence[Seen],
    *,
    memory_bytes: int = 0,
    present: Mapping[str, str] | None = None,
) -> list[Spot]:
    """Where each model goes, in the order given.

    Args:
        seen: what llama.cpp sees.
        memory_bytes: the budget of each box; 0 is what its devices have.
        present: our own environment.
    """
    gpus = accelerators_of(snapshot)
    chosen = llama_devices.usable(seen, {gpu.uuid: gpu.pci_address or "" for gpu in gpus})
    usable = [gpu for gpu in gpus if gpu.uuid in chosen]
    plan = _plan(models, usable, snapshot, memory_bytes)
    host = host_of(snapshot)
    found = []
    for model in models:
        place = plan.place(model.name)
        if place.devices:
            shown = llama_devices.environment(
                {uuid: chosen[uuid] for uuid in place.devices}, os.environ if present is None else present
            )
            found.append(Spot(model.name, place.devices, _memory(model.on_gpu), shown, why=place.why))
        else:
            devices = () if host is None else (host.uuid,)
            why = f"{place.why} It stays in main memory." if usable else _no_gpu(gpus)
            shown = llama_devices.environment({}, {}) if gpus else {}
            found.append(Spot(model.name, devices, _memory(model.on_cpu), shown, on_cpu=bool(gpus), why=why))
    return _started(found, snapshot, memory_bytes)


def table(found: Sequence[Spot], snapshot: Snapshot) -> str:
    """Lines for people."""
    names = {device.uuid: device.name for device in snapshot.devices}
    lines = [f"{'model':<32} {'GiB':>8}  {'starts':<9}  where"]
    for spot in found:
        size = f"{spot.memory.high_bytes / GIB:.1f}" if spot.memory else "?"
        where = ", ".join(f"{uuid} ({names[uuid]})" for uuid in spot.devices) or "this machine"
        starts = "at once" if spot.is_started else "never" if spot.is_refused else "on demand"
        lines.append(f"{spot.name:<32} {size:>8}  {starts:<9}  {where}")
        lines += [f"{'':<32} {spot.why}"] if spot.why else []
    return "\n".join(lines)


def _plan(models: Sequence[Wanted], gpus: Sequence[Device], snapshot: Snapshot, memory_bytes: int) -> Plan:
    free = {gpu.uuid: size for gpu in gpus if (size := free_bytes(snapshot, gpu)) is not None}
    if memory_bytes:
        # As much as leaves the budget when the headroom is taken off.
        most = max(memory_bytes + HEADROOM_BYTES, -(-memory_bytes * 100 // (100 - HEADROOM_PERCENT)))
        free = {uuid: min(size, most) for uuid, size in free.items()}
    # A process sees one slice of a GPU at most.
    splittable = not any(gpu.kind == "mig" for gpu in gpus)
    demands = [
        Demand(model.name, model.on_gpu.high_bytes, splittable, _part_bytes(model.on_gpu))
        if model.on_gpu
        else Demand(model.name, 0)
        for model in models
    ]
    return place_in_turns(free, demands, links_of([gpu for gpu in gpus if gpu.uuid in free]))


def _part_bytes(estimate: MemoryEstimate) -> int:
    """What each device of a group takes besides its share: its context, and buffers of its own."""
    return GPU_CONTEXT_BYTES[-1] + estimate.part("compute").high_bytes


def _memory(estimate: MemoryEstimate | None) -> ModelMemory | None:
    return None if estimate is None else ModelMemory(estimate.expected_bytes, estimate.high_bytes)


def _no_gpu(gpus: Sequence[Device]) -> str:
    return "llama.cpp as it is installed here can use none of the GPUs, so it stays in main memory." if gpus else ""


def _started(found: Sequence[Spot], snapshot: Snapshot, memory_bytes: int) -> list[Spot]:
    """Which of them start with the server: those for which their box has room, and the first of each."""
    known = memory_of(snapshot)
    taken: dict[tuple[str, ...], int] = {}
    decided = []
    for spot in found:
        budget = memory_bytes or budget_of(spot.devices, known)
        memory, notes, is_started, is_refused = spot.memory, [spot.why] if spot.why else [], True, False
        size = memory.high_bytes if memory else 0
        if size > budget:
            missing = f"It needs {_gib(size)}, and {_gib(budget)} are for models: {size - budget} bytes are missing."
            if memory_bytes:
                is_started, is_refused = False, True
                notes.append(f"{missing} Requests for it are refused.")
            else:
                # Mapped weights are read again and again from the disk.
                memory, size = ModelMemory(budget, budget), budget
                notes.append(f"{missing} It is loaded without any other, and slow.")
        free = [known[uuid].free_bytes for uuid in spot.devices if uuid in known]
        room = min([budget, *(len(free) * each for each in free if each is not None)])
        if is_started and spot.devices in taken and taken[spot.devices] + size > room:
            is_started = False
            notes.append(f"It needs {_gib(size)} beside the others, so it is loaded when somebody wants it.")
        if is_started:
            taken[spot.devices] = taken.get(spot.devices, 0) + size
        decided.append(replace(spot, memory=memory, is_started=is_started, is_refused=is_refused, why=" ".join(notes)))
    return decided


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
