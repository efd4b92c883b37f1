"""What is known of each model that could be in memory: where it is, who uses it, who waits for it."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from server.errors import NotFound, Unavailable, WirthforgeError

GIB = 1 << 30
# How fast weights come from a disk, until a load of the model was measured: a SATA drive, in bytes a millisecond.
DISK_BYTES_PER_MS = 500_000
# Who causes a load for which nobody has asked.
NOBODY = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long, and how many.

    Attributes:
        hold_ms_min: how long a model in demand keeps its place.
        wait_ms_max: how long a request waits for its model.
        load_ms_max: how long a load may take.
        waiting_max: how many requests wait at a time.
        backoff_ms_min, backoff_ms_max: after the first failed load, and after many.
    """

    hold_ms_min: int = 30_000
    wait_ms_max: int = 300_000
    load_ms_max: int = 300_000
    waiting_max: int = 256
    backoff_ms_min: int = 5_000
    backoff_ms_max: int = 300_000


class Load(Struct, frozen=True, kw_only=True):
    """A model came into memory.

    Attributes:
        caused_by: who had waited longest for it, and is to be charged; NOBODY if it came unasked.
        took_ms: the load itself, without the waiting for room.
        evicted: what had to go for it, as (engine, model).
    """

    engine: str
    model: str
    caused_by: str
    took_ms: int
    evicted: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, eq=False)
class Waiter:
    """One request that waits until its model is in memory.

    Attributes:
        number: who came first has the smaller one.
        turn: done when it may enter, with the load that it waited for, if there was one; or failed.
    """

    number: int
    caused_by: str
    turn: asyncio.Future[Load | None]


class State(StrEnum):
    """Where a model's weights are.

    `HOST_RAM` is asleep in main memory: it takes no room on the device and is back sooner than from disk.
    """

    COLD = "cold"
    HOST_RAM = "host_ram"
    RESIDENT = "resident"
    BUSY = "busy"


# They take room on the device.
IN_MEMORY = frozenset({State.RESIDENT, State.BUSY})


@dataclass(slots=True, eq=False)
class Place:
    """A model of an engine, and what is known of it.

    Attributes:
        size_bytes: what it takes of the budget while it is resident.
        in_use: requests that run, or have been let in and will.
        is_moving: it is being loaded or unloaded.
        is_yielding: nobody enters, because others wait for its room.
        is_used_elsewhere: the engine says that it is busy, and not by us.
        held_until_ms: the end of its hold.
        pinned_until_ms: not before then is it tried to unload it again.
        reload_ms: how long its last load took; 0 if it was never seen.
        refused_until_ms: after a failed load, nobody tries before then.
        failures: loads that failed in a row.
    """

    engine: str
    model: str
    state: State = State.COLD
    size_bytes: int = 0
    in_use: int = 0
    is_moving: bool = False
    is_yielding: bool = False
    is_used_elsewhere: bool = False
    held_until_ms: int = 0
    used_at_ms: int = 0
    pinned_until_ms: int = 0
    reload_ms: int = 0
    score: int = 0
    refused_until_ms: int = 0
    failures: int = 0
    waiting: deque[Waiter] = field(default_factory=deque)

    @property
    def is_resident(self) -> bool:
        """Whether it takes room on the device."""
        return self.state in IN_MEMORY

    @property
    def is_open(self) -> bool:
        """Whether a request may enter at once."""
        return self.is_resident and not self.is_yielding and not self.is_moving

    @property
    def cost_ms(self) -> int:
        """What it takes to have it back: as measured, or as long as reading it from a disk."""
        return self.reload_ms or max(1, self.size_bytes // DISK_BYTES_PER_MS)

    @property
    def asker(self) -> str:
        """Who has waited longest for it."""
        return self.waiting[0].caused_by if self.waiting else NOBODY

    def fail(self, fault: Callable[[], WirthforgeError]) -> None:
        """Tell all who wait, each with an error of its own: a shared one would gather everybody's traceback."""
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.turn.done():
                waiter.turn.set_exception(fault())

    def touch(self, now_ms: int, age: int) -> None:
        """It was used: renew its score."""
        self.used_at_ms = now_ms
        self.score = age + self.cost_ms * GIB // max(1, self.size_bytes)

    def view(self) -> "Placed":
        """What people may see of it."""
        return Placed(
            engine=self.engine,
            model=self.model,
            state=State.BUSY if self.is_resident and self.in_use else self.state,
            is_moving=self.is_moving,
            in_use=self.in_use,
            waiting=len(self.waiting),
            size_bytes=self.size_bytes,
            load_ms=self.cost_ms,
        )


class Placed(Struct, frozen=True, kw_only=True):
    """A model as people may see it.

    Attributes:
        size_bytes: what is booked for it.
        load_ms: what it takes to have it in memory again.
        seen_bytes: what its last measured load took; 0 if none was.
    """

    engine: str
    model: str
    state: State
    is_moving: bool
    in_use: int
    waiting: int
    size_bytes: int
    load_ms: int = 0
    seen_bytes: int = 0


class Loader(Protocol):
    """What has models in memory: the residency of one box, or all boxes."""

    def use(self, engine: str, model: str, *, caused_by: str) -> AbstractAsyncContextManager[Load | None]:
        """Have the model in memory while the block runs; see `Residency.use`."""
        ...

    def view(self) -> list[Placed]:
        """Every model that is known."""
        ...


def unknown(place: Place) -> NotFound:
    """Its engine does not have it."""
    return NotFound(f"Engine {place.engine} has no model {place.model[:100]!r}.", code="model_not_found")


def failed_lately(place: Place, now_ms: int) -> Unavailable:
    """Its last load failed, and it is too early for another."""
    return Unavailable(
        f"Model {place.model} could not be loaded. The next attempt is allowed in a while.",
        code="load_failed",
        retry_after_s=-(-(place.refused_until_ms - now_ms) // 1000),
    )


def too_large(place: Place, budget_bytes: int) -> Unavailable:
    """It would not fit if nothing else were there."""
    return Unavailable(
        f"Model {place.model} needs {place.size_bytes >> 20} MiB, and the box has {budget_bytes >> 20} MiB for models.",
        code="model_too_large",
    )


def reason(error: Exception) -> str:
    """Of errors that are not ours only the kind: their text may hold anything."""
    return error.message if isinstance(error, WirthforgeError) else type(error).__name__
