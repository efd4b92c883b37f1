"""Boxes: the devices of this host in the groups that models are loaded on, each with a budget and a residency.

A model on one GPU does not wait for room on another, and must not be thought to have it. So each device, or group of
devices that a model is spread over, is a box with memory of its own and one `Residency`. Groups that share a device
would not be independent; a device is alone or in one group, never both, and `check` refuses what breaks that.

To which box an engine belongs:

- that of the devices that its admin names, or on which this server started it;
- else, if it is on this host: the GPU, where there is exactly one; otherwise the box `host`, which all such engines
  share, because nobody knows where they put their models;
- else, on another host: a box of its own.

The budget of a box is the setting `models_memory_bytes` if it is set, else what its devices have beside the headroom.
Without devices nobody knows, and the engines decide. A model that is larger than its devices is not refused: it has
the box for itself, and its engine knows what it can do. Ollama and llama-server put the rest into main memory; vLLM was
told its share when it was started. Only the setting is a bound that no model may break.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urlsplit

from msgspec.structs import replace

from server.clock import Clock
from server.engines.drivers import Driver
from server.engines.gauge import UNBOUNDED_BYTES, DeviceGauge, Sizes, budget_of
from server.engines.places import IN_MEMORY, Bounds, Load, Placed
from server.engines.provident import ProvidentResidency
from server.engines.residency import OnLoad
from server.errors import InvalidRequest, NotFound
from server.messages import DeviceMemory, ModelMemory

HOST = "host"
# A name, where nobody knows the devices; else the devices.
Box = tuple[str, frozenset[str]]


class Machine(Protocol):
    """The devices of this host. The hardware monitor is one."""

    @property
    def memory(self) -> Mapping[str, DeviceMemory]:
        """As last read, by uuid; empty where nothing is known."""
        ...

    @property
    def accelerators(self) -> Sequence[str]:
        """Those that models can be placed on, but for the host itself."""
        ...

    async def read_memory(self) -> Mapping[str, DeviceMemory]:
        """Read anew."""
        ...


class Boxes:
    """All boxes; to a request they are one residency.

    Args:
        memory_bytes: the budget of each box; 0 is what its devices have.
        estimated: what is foreseen for a model of an engine.
        on_load: told of every load.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        memory_bytes: int,
        estimated: Callable[[str, str], ModelMemory],
        clock: Clock,
        on_load: OnLoad,
        bounds: Bounds | None = None,
    ) -> None:
        self._machine = machine
        self._memory_bytes = memory_bytes
        self._clock = clock
        self._on_load = on_load
        self._bounds = bounds
        self._sizes = Sizes(estimated)
        self._boxes: dict[Box, ProvidentResidency] = {}
        self._of: dict[str, ProvidentResidency] = {}
        self._devices: dict[str, frozenset[str]] = {}
        self._spills: set[str] = set()
        self._tasks: asyncio.TaskGroup | None = None

    def join(self, engine: str, driver: Driver, *, url: str, devices: Iterable[str] = (), spills: bool = False) -> None:
        """Take over an engine.

        Args:
            devices: by uuid; none if nobody has named them.
            spills: it makes do with less than a model needs.
        """
        if spills:
            self._spills.add(engine)
        box = self._box_of(engine, url, frozenset(devices))
        residency = self._boxes.get(box)
        if residency is None:
            residency = self._boxes[box] = self._made(box)
            if self._tasks is not None:
                self._tasks.create_task(residency.run())
        self._of[engine], self._devices[engine] = residency, box[1]
        residency.join(engine, driver)

    def leave(self, engine: str) -> None:
        """Let go of an engine; who waits for its models is told so."""
        if (residency := self._of.pop(engine, None)) is not None:
            residency.leave(engine)
            self._spills.discard(engine)
            del self._devices[engine]
            self._sizes.forget(engine)

    def check(self, engine: str, devices: Sequence[str], others: Mapping[str, Sequence[str]]) -> None:
        """Whether an engine may be on these devices.

        Args:
            others: the devices of all other engines that name some.

        Raises:
            InvalidRequest: there is no such device, or one is in another group already.
        """
        known = self._machine.memory
        for device in devices:
            if known and device not in known:
                raise InvalidRequest(
                    f"This host has no device {device[:100]!r}. It has {', '.join(sorted(known))}.", param="devices"
                )
        if len(set(devices)) < len(devices):
            raise InvalidRequest("A device is named twice.", param="devices")
        for other, theirs in others.items():
            if other != engine and set(devices) != set(theirs) and (shared := set(devices) & set(theirs)):
                raise InvalidRequest(
                    f"The engine {other} has {min(shared)} in the box of {', '.join(sorted(theirs))}. A device is in "
                    "one box only: name the same devices, or none.",
                    param="devices",
                )

    def use(self, engine: str, model: str, *, caused_by: str) -> AbstractAsyncContextManager[Load | None]:
        """Have the model in memory while the block runs; see `Residency.use`."""
        residency = self._of.get(engine)
        return nullcontext() if residency is None else residency.use(engine, model, caused_by=caused_by)

    def total_bytes(self, engine: str) -> int:
        """What the devices of an engine's box have together, headroom included; 0 where nobody knows."""
        known = self._machine.memory
        return sum(known[uuid].total_bytes or 0 for uuid in self._devices.get(engine, ()) if uuid in known)

    def name_of(self, engine: str) -> str:
        """The box of an engine; one that nothing is loaded for is a box of its own."""
        residency = self._of.get(engine)
        for (name, devices), each in self._boxes.items():
            if each is residency:
                return name or "+".join(sorted(devices))
        return f"engine {engine}"

    def free_bytes(self, engine: str) -> int | None:
        """What could still be loaded into an engine's box by what is booked there; None where nothing bounds it."""
        residency = self._of.get(engine)
        if residency is None or (budget_bytes := residency.budget_bytes()) >= UNBOUNDED_BYTES:
            return None
        return max(0, budget_bytes - sum(each.size_bytes for each in residency.view() if each.state in IN_MEMORY))

    def groups(self) -> dict[ProvidentResidency, list[str]]:
        """What has the models of each box in memory, and the engines there."""
        return {each: [name for name, of in self._of.items() if of is each] for each in self._boxes.values()}

    def view(self) -> list[Placed]:
        """Every model that is known."""
        return [
            replace(placed, seen_bytes=self._sizes.seen_bytes(placed.engine, placed.model))
            for residency in self._boxes.values()
            for placed in residency.view()
        ]

    async def unload(self, engine: str, model: str) -> None:
        """Take a model out of memory because an admin says so; see `Residency.unload`."""
        residency = self._of.get(engine)
        if residency is None:
            raise NotFound(f"Engine {engine} has no model {model!r} that could be unloaded.")
        await residency.unload(engine, model)

    async def refresh(self) -> None:
        """Ask all engines where their models are."""
        await asyncio.gather(*(residency.refresh() for residency in self._boxes.values()))

    async def run(self) -> None:
        """Load and unload as needed, until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for residency in self._boxes.values():
                    self._tasks.create_task(residency.run())
                await asyncio.get_running_loop().create_future()
        finally:
            self._tasks = None

    def _box_of(self, engine: str, url: str, devices: frozenset[str]) -> Box:
        if devices:
            return "", devices
        if not is_here(url):
            return f"engine {engine}", frozenset()
        gpus = self._machine.accelerators
        return ("", frozenset(gpus)) if len(gpus) == 1 else (HOST, frozenset())

    def _made(self, box: Box) -> ProvidentResidency:
        devices = sorted(box[1])

        def budget_bytes() -> int:
            return self._memory_bytes or budget_of(devices, self._machine.memory)

        def size_bytes(engine: str, model: str) -> int:
            size = self._sizes.bytes_of(engine, model)
            return size if self._memory_bytes else min(size, budget_bytes())

        return ProvidentResidency(
            {},
            size_bytes=size_bytes,
            budget_bytes=budget_bytes,
            clock=self._clock,
            on_load=self._on_load,
            bounds=self._bounds,
            gauge=DeviceGauge(devices, self._machine.read_memory, self._sizes, self._spills) if devices else None,
        )


class NoMachine:
    """A host whose hardware nobody looks at."""

    memory: Mapping[str, DeviceMemory] = {}
    accelerators: Sequence[str] = ()

    async def read_memory(self) -> Mapping[str, DeviceMemory]:
        """Nothing is known."""
        return {}


def is_here(url: str) -> bool:
    """Whether an engine at this URL is on this host, as far as its name says."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
