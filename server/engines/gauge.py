"""What the devices of a box tell of their memory, and what a load really took of it.

A model is admitted by two bounds, and both must hold:

    by what is booked    sizes of all that is loaded + its own   <=  the budget of the box
    by what is free      its own                                 <=  what the devices could give now

The first is known before anything is loaded, keeps the headroom, and holds also where a load takes its memory only as
it is used. The second sees what nobody has booked: a game, somebody else's training run, a model that took more than
was foreseen.

What a load took is the difference of the used bytes before and after it, and is believed only where nothing else moved
meanwhile: on each device exactly one process may have come or grown. Where the driver does not tell processes and their
bytes (in most containers), nothing is learned.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Protocol

import structlog

from server.messages import DeviceMemory, ModelMemory
from server.telemetry import MODEL_MEMORY_RATIO

# Where nobody knows what a box has, everything fits: the engines decide.
UNBOUNDED_BYTES = 1 << 60

log = structlog.get_logger(__name__)

# The memory of all devices of this host by uuid, read anew.
Look = Callable[[], Awaitable[Mapping[str, DeviceMemory]]]


class Gauge(Protocol):
    """What a residency asks of the memory of its box."""

    async def read(self) -> None:
        """Look at the devices anew."""
        ...

    def free_for(self, engine: str) -> int | None:
        """Bytes that a model of this engine could be given, as last read; None where nothing bounds it."""
        ...

    def measuring(self, engine: str, model: str) -> AbstractAsyncContextManager[None]:
        """Around a load: learn what it takes."""
        ...


class NoGauge:
    """Of a box whose devices nobody knows."""

    async def read(self) -> None:
        """Nothing."""

    def free_for(self, _engine: str) -> int | None:
        """Nobody knows."""
        return None

    def measuring(self, _engine: str, _model: str) -> AbstractAsyncContextManager[None]:
        """Nothing."""
        return nullcontext()


class Sizes:
    """What each model takes: as estimated, and at least what was seen of it.

    Args:
        estimated: what is foreseen for a model of an engine; zeros where nobody knows.
    """

    def __init__(self, estimated: Callable[[str, str], ModelMemory]) -> None:
        self._estimated = estimated
        self._seen: dict[tuple[str, str], int] = {}

    def bytes_of(self, engine: str, model: str) -> int:
        """What to book for it: the upper end, and as much more as was seen above the value."""
        memory = self._estimated(engine, model)
        return memory.high_bytes + max(0, self.seen_bytes(engine, model) - memory.expected_bytes)

    def seen_bytes(self, engine: str, model: str) -> int:
        """What its last measured load took; 0 if none was."""
        return self._seen.get((engine, model), 0)

    def saw(self, engine: str, model: str, taken_bytes: int) -> None:
        """A load was measured. It takes the place of the one before: a wrong one does not stay for ever."""
        expected_bytes = self._estimated(engine, model).expected_bytes
        self._seen[engine, model] = taken_bytes
        log.info("model measured", engine=engine, model=model, taken_bytes=taken_bytes, estimated_bytes=expected_bytes)
        if expected_bytes:
            MODEL_MEMORY_RATIO.labels(engine).observe(taken_bytes / expected_bytes)

    def forget(self, engine: str) -> None:
        """An engine is gone, or another has its name."""
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] != engine}


class DeviceGauge:
    """The gauge of a box that has devices.

    Args:
        devices: by uuid.
        look: asks the drivers.
        spills: engines that make do with what is free, and put the rest of a model into main memory.
    """

    def __init__(self, devices: Sequence[str], look: Look, sizes: Sizes, spills: Collection[str] = ()) -> None:
        self._devices = tuple(devices)
        self._look = look
        self._sizes = sizes
        self._spills = spills
        self._read: Sequence[DeviceMemory] = ()

    async def read(self) -> None:
        """See `Gauge`."""
        self._read = await self._now()

    def free_for(self, engine: str) -> int | None:
        """See `Gauge`. A model is spread over all devices alike, so the fullest one bounds it."""
        if engine in self._spills:
            return None
        free = [device.free_bytes for device in self._read]
        known = [size for size in free if size is not None]
        return len(known) * min(known) if known and len(known) == len(self._devices) else None

    @asynccontextmanager
    async def measuring(self, engine: str, model: str) -> AsyncIterator[None]:
        """See `Gauge`. Learns nothing from a load that fails."""
        before = await self._now()
        yield
        after = await self._now()
        taken_bytes = taken(before, after)
        if taken_bytes is not None:
            self._sizes.saw(engine, model, taken_bytes)

    async def _now(self) -> Sequence[DeviceMemory]:
        found = await self._look()
        return [found[uuid] for uuid in self._devices if uuid in found]


def budget_of(devices: Sequence[str], known: Mapping[str, DeviceMemory]) -> int:
    """What the models of a box may take together; unbounded where a device is not known, or there is none."""
    usable = [known[uuid].usable_bytes for uuid in devices if uuid in known]
    sizes = [size for size in usable if size is not None]
    return len(sizes) * min(sizes) if sizes and len(sizes) == len(devices) else UNBOUNDED_BYTES


def taken(before: Sequence[DeviceMemory], after: Sequence[DeviceMemory]) -> int | None:
    """Bytes that a load took of all devices together; None where something else may have moved too."""
    if not before or [device.uuid for device in before] != [device.uuid for device in after]:
        return None
    sizes = [_taken(one, other) for one, other in zip(before, after, strict=True)]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _taken(before: DeviceMemory, after: DeviceMemory) -> int | None:
    if before.processes is None or after.processes is None or before.used_bytes is None or after.used_bytes is None:
        return None
    pids = before.processes.keys() | after.processes.keys()
    grown = {pid: after.processes.get(pid, 0) - before.processes.get(pid, 0) for pid in pids}
    moved = [change for change in grown.values() if change]
    difference = after.used_bytes - before.used_bytes
    return difference if len(moved) == 1 and moved[0] > 0 and difference > 0 else None
