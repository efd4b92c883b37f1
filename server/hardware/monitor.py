"""Looks at the box every few seconds, and tells the others: a snapshot, Prometheus, the history.

Drivers block, and a driver in trouble blocks for ever. So each provider has a thread of its own, which nobody waits
for longer than ANSWER_MS_MAX: whoever does not answer is left out of the snapshot (its devices stay known, without
samples), is not asked again until it has answered, and costs nobody else more than that wait. The threads are daemons:
one that hangs does not keep the server from ending. Each trouble is logged when it begins and when it ends, once.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from queue import SimpleQueue
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy.exc import SQLAlchemyError

from server.clock import Clock
from server.errors import Unavailable
from server.hardware import gauges
from server.hardware.devices import DEVICES_MAX, Absent, Device, Provider, Sample, Snapshot, XidEvent, topology_of
from server.hardware.history import History
from server.hardware.periods import Periods, Row
from server.hardware.providers import REASON_CHARACTERS_MAX, Loaded
from server.hardware.room import accelerators_of, memory_of
from server.messages import DeviceMemory

SAMPLE_EVERY_MS = 5_000
ANSWER_MS_MAX = 5_000
# Devices come and go: MIG slices are made, drivers are loaded.
DEVICES_EVERY_MS = 60_000
EVENTS_MAX = 100
# An hour of rows waits for a Postgres that is away; older ones are dropped.
ROWS_WAITING_MAX = 1_000
RETRY_MS = 5_000
# Rows that Postgres takes offence at so often are dropped, so that those behind them are written.
REFUSED_MAX = 3

log = structlog.get_logger(__name__)


Told = TypeVar("Told", Device, Sample)


class _Read(Struct, frozen=True):
    """What a provider said in one round."""

    devices: tuple[Device, ...]
    samples: tuple[Sample, ...]


class _Worker:
    """A provider and its thread.

    Attributes:
        absent: why it has nothing to tell, where it has not.
        fault: what trouble it was in, in the last round.
    """

    def __init__(self, provider: Provider, clock: Clock) -> None:
        self.name = provider.name
        self.absent = ""
        self.fault = ""
        self.devices: tuple[Device, ...] = ()
        self._provider = provider
        self._clock = clock
        # The thread's own: what it listed last, and when.
        self._listed: tuple[Device, ...] = ()
        self._listed_ms: int | None = None
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._asked: asyncio.Future[_Read] | None = None
        threading.Thread(target=self._work, name=f"hardware {self.name}", daemon=True).start()

    async def ask(self, answer_ms_max: int) -> tuple[Sample, ...]:
        """Its samples; none, and `fault` set, where it cannot tell or takes too long."""
        if self._asked is None or self._asked.done():
            self._asked = self._put()
        await asyncio.wait([self._asked], timeout=answer_ms_max / 1000)
        if not self._asked.done():
            self._tell(f"it has not answered within {answer_ms_max} ms")
            return ()
        try:
            read = self._asked.result()
        except Absent as error:
            # Normal, and no news: most boxes lack most kinds of devices.
            self._tell("")
            self.devices, self.absent = (), str(error)
            return ()
        except Exception as error:  # noqa: BLE001 (a driver, or foreign code)
            self._tell(f"{type(error).__name__}: {error}"[:REASON_CHARACTERS_MAX])
            return ()
        self._tell("")
        self.devices, self.absent = read.devices, ""
        return read.samples

    @property
    def is_asked(self) -> bool:
        """Whether it is being asked just now."""
        return self._asked is not None and not self._asked.done()

    def close(self) -> None:
        """Let the thread close the provider and end, without waiting: it may hang."""
        self._jobs.put(None)

    def _tell(self, fault: str) -> None:
        if fault and fault != self.fault:
            log.warning("hardware is not told", provider=self.name, reason=fault)
        elif self.fault and not fault:
            log.info("hardware is told again", provider=self.name)
        self.fault = fault

    def _put(self) -> asyncio.Future[_Read]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Read] = loop.create_future()

        def job() -> None:
            try:
                read = self._read()
            except BaseException as error:  # noqa: BLE001 (it goes to whoever asked)
                fault = error if isinstance(error, Exception) else RuntimeError(repr(error))
                _hand_over(loop, answer, lambda: answer.set_exception(fault))
            else:
                _hand_over(loop, answer, lambda: answer.set_result(read))

        self._jobs.put(job)
        return answer

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        try:
            self._provider.close()
        except Exception as error:  # noqa: BLE001 (likewise, and this is the end)
            log.warning("hardware was not closed", provider=self.name, reason=str(error)[:REASON_CHARACTERS_MAX])

    def _read(self) -> _Read:
        """In the thread."""
        now_ms = self._clock.monotonic_ms()
        if self._listed_ms is None or now_ms - self._listed_ms >= DEVICES_EVERY_MS:
            found = [_checked(one, Device) for one in list(self._provider.devices())[:DEVICES_MAX]]
            self._listed = tuple(replace(device, provider=self.name) for device in found)
            self._listed_ms = now_ms
        samples = tuple(_checked(self._provider.sample(device), Sample) for device in self._listed)
        return _Read(self._listed, samples)


def _checked(told: Told, kind: type[Told]) -> Told:
    """What a provider, perhaps a plugin, told, if all of it has the types and bounds that devices.py says.

    Raises:
        TypeError, msgspec.ValidationError: it is not.
    """
    if not isinstance(told, kind):
        raise TypeError(f"it told a {type(told).__name__} instead of a {kind.__name__}")
    return msgspec.convert(msgspec.to_builtins(told, builtin_types=(datetime,)), kind)


def _hand_over(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Any], settle: Callable[[], None]) -> None:
    """From a provider's thread, into the loop, which may have ended meanwhile."""

    def settled() -> None:
        if not answer.done():
            settle()

    try:
        loop.call_soon_threadsafe(settled)
    except RuntimeError:
        return


class Monitor:
    """Samples all providers.

    Args:
        history: where samples go; None: nowhere.
        answer_ms_max: how long a provider may take.
    """

    def __init__(
        self, loaded: Loaded, clock: Clock, history: History | None = None, *, answer_ms_max: int = ANSWER_MS_MAX
    ) -> None:
        self._clock = clock
        self._history = history
        self._answer_ms_max = answer_ms_max
        self._broken = loaded.broken
        self._workers = [_Worker(provider, clock) for provider in loaded.providers]
        self._periods = Periods()
        self._events: deque[XidEvent] = deque(maxlen=EVENTS_MAX)
        self._rows: deque[Row] = deque(maxlen=ROWS_WAITING_MAX)
        self._has_rows = asyncio.Event()
        self._snapshot = Snapshot(at=clock.now())

    @property
    def snapshot(self) -> Snapshot:
        """The box as it was last seen; empty until the first look."""
        return self._snapshot

    @property
    def memory(self) -> dict[str, DeviceMemory]:
        """The memory of the devices that models can be on, as last seen."""
        return memory_of(self._snapshot)

    @property
    def accelerators(self) -> list[str]:
        """The devices that models can be placed on, but for the host, by uuid."""
        return [device.uuid for device in accelerators_of(self._snapshot)]

    async def read_memory(self) -> dict[str, DeviceMemory]:
        """The same, read from now on: a look that is under way may be of before."""
        if any(worker.is_asked for worker in self._workers):
            await self.look()
        return memory_of(await self.look())

    async def look(self) -> Snapshot:
        """Ask all providers once, at the same time; takes `answer_ms_max` at the most."""
        answers = await asyncio.gather(*(worker.ask(self._answer_ms_max) for worker in self._workers))
        devices = _numbered([device for worker in self._workers for device in worker.devices])
        known = {device.uuid for device in devices}
        samples = {sample.uuid: sample for answer in answers for sample in answer if sample.uuid in known}
        self._note_events(samples.values())
        self._snapshot = Snapshot(
            at=self._clock.now(),
            devices=devices,
            samples=samples,
            topology=topology_of(devices),
            absent={worker.name: worker.absent for worker in self._workers if worker.absent},
            faults={
                **{name: f"plugin left out: {reason}" for name, reason in self._broken.items()},
                **{worker.name: worker.fault for worker in self._workers if worker.fault},
            },
            events=tuple(self._events),
        )
        gauges.show(self._snapshot)
        self._rows.extend(self._periods.add(self._snapshot))
        if self._rows:
            self._has_rows.set()
        return self._snapshot

    async def run(self) -> None:
        """Look and write until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(), name="hardware samples")
            if self._history is not None:
                tasks.create_task(self._write(self._history), name="hardware history")

    def close(self) -> None:
        """Let go of all drivers; returns at once."""
        for worker in self._workers:
            worker.close()

    async def _watch(self) -> None:
        while True:
            await self.look()
            await self._clock.sleep_ms(SAMPLE_EVERY_MS)

    async def _write(self, history: History) -> None:
        is_away, refused = False, 0
        while True:
            await self._has_rows.wait()
            rows = list(self._rows)
            try:
                await history.write(rows)
            except Unavailable as error:
                if not is_away:
                    log.warning("hardware history waits", reason=error.message)
                is_away = True
                await self._clock.sleep_ms(RETRY_MS)
                continue
            except SQLAlchemyError as error:
                refused += 1
                if refused < REFUSED_MAX:
                    continue
                log.error("hardware history is lost", rows=len(rows), reason=type(error).__name__)
            is_away, refused = False, 0
            for row in rows:  # those that were dropped meanwhile are not there any more
                if self._rows and self._rows[0] is row:
                    self._rows.popleft()
            if not self._rows:
                self._has_rows.clear()

    def _note_events(self, samples: Iterable[Sample]) -> None:
        for sample in samples:
            for xid in sample.xids:
                self._events.append(XidEvent(uuid=sample.uuid, xid=xid, at=sample.at))
                gauges.saw_xid(sample.uuid, xid)
                log.error("the NVIDIA driver reports a fault", device=sample.uuid, xid=xid)


def _numbered(devices: Sequence[Device]) -> tuple[Device, ...]:
    """In one list, each uuid once: where two providers claim one, the first has it."""
    first: dict[str, Device] = {}
    for device in devices:
        first.setdefault(device.uuid, device)
    return tuple(replace(device, index=index) for index, device in enumerate(list(first.values())[:DEVICES_MAX]))
