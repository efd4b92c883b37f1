"""Replicas of the server's gate that share one Redis, in virtual time or in real time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from quotas.cost import Cost
from quotas.ledger import Entry, Ledger
from quotas.policy import Limits
from quotas.window import Window
from server.clock import Clock, SystemClock
from server.settings import Settings
from server.sharing.gate import REPORT_MS, Gate
from server.sharing.lease import Asking, Lease
from server.sharing.outlook import Outlook
from tests.clocks import FakeClock

ENGINE = "e"
POLL_MS = 2
BEGINNING_MS = 1_000_000
# Each gate has two loops that sleep: report and tend.
SLEEPERS = 2


def entry(name: str = "", *, user: str = "", is_revocable: bool = False) -> Entry:
    """A request, of somebody new unless said otherwise."""
    return Entry(
        id=name or uuid4().hex,
        engine=ENGINE,
        model="m",
        surface="completions",
        user=user or str(uuid4()),
        key="",
        input_tokens=3,
        started_at_ms=1_800_000_000_000,
        prompt_cost=3,
        output_tokens_max=10,
        output_tokens_min=10,
        is_revocable=is_revocable,
    )


def asking(request: Entry | None = None, limits: Limits | None = None, **more: Any) -> Asking:
    """A request at the gate, of somebody without limits."""
    return Asking(entry=request or entry(), limits=limits or Limits(), cost=Cost(), **more)


class House:
    """Gates, which may be cut off, and come back."""

    def __init__(self, redis: Redis, settings: Settings, clock: Clock, now_ms: int | None) -> None:
        self.redis = redis
        self.clock = clock
        self.ledger = Ledger(redis, now_ms=now_ms)
        self.gates: dict[str, Gate] = {}
        self._settings = settings
        self._running: dict[str, asyncio.Task[None]] = {}

    def replica(self, name: str, slots: int) -> Gate:
        """Start one."""
        outlook = Outlook(self.ledger, self.clock)
        gate = Gate(self.ledger, outlook, replica=name, clock=self.clock, settings=self._settings)
        self.gates[name] = gate
        gate.set_window(ENGINE, Window(slots=slots))
        self.come_back(name)
        return gate

    def come_back(self, name: str) -> None:
        """Let its loops run."""
        self._running[name] = asyncio.create_task(self.gates[name].run())

    async def cut_off(self, name: str) -> None:
        """Stop its loops: to the others it is dead."""
        running = self._running.pop(name)
        running.cancel()
        await asyncio.wait([running])

    @property
    def running(self) -> list[str]:
        """Those whose loops run."""
        return list(self._running)

    async def close(self) -> None:
        """Stop them all."""
        for name in list(self._running):
            await self.cut_off(name)

    async def load(self, running: int, waiting: int, within_ms: int = 5_000) -> None:
        """Wait until so many run and wait."""
        real = SystemClock()
        deadline_ms = real.monotonic_ms() + within_ms
        while (found := await self.ledger.load(ENGINE)) != (running, waiting):
            assert real.monotonic_ms() < deadline_ms, f"{found} instead of {(running, waiting)}"
            await real.sleep_ms(POLL_MS)

    async def events(self) -> list[dict[str, str]]:
        """What was settled."""
        found: Any = await self.redis.xrange("wf:{box}:settled")
        return [fields for _, fields in found]

    async def leftovers(self) -> list[str]:
        """Keys of requests."""
        return [key async for key in self.redis.scan_iter("wf:{box}:request:*")]


class VirtualHouse(House):
    """A house in which time passes when the test says so."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.fake = FakeClock()
        super().__init__(redis, settings, self.fake, BEGINNING_MS)

    async def pass_ms(self, duration_ms: int) -> None:
        """Let time pass in steps in which every gate that runs reports."""
        for _ in range(0, duration_ms, REPORT_MS):
            await self._asleep()
            assert self.ledger.now_ms is not None
            self.ledger.now_ms += REPORT_MS
            self.fake.advance(timedelta(milliseconds=REPORT_MS))
        await self._asleep()

    async def _asleep(self) -> None:
        async with asyncio.timeout(5):
            while sum(not turn.done() for _, turn in self.fake._sleepers) < SLEEPERS * len(self._running):
                await SystemClock().sleep_ms(1)


@asynccontextmanager
async def house_of(redis: Redis, settings: Settings) -> AsyncIterator[House]:
    """A house in real time."""
    house = House(redis, settings, SystemClock(), None)
    try:
        yield house
    finally:
        await house.close()


@asynccontextmanager
async def virtual_house_of(redis: Redis, settings: Settings) -> AsyncIterator[VirtualHouse]:
    """A house in virtual time."""
    house = VirtualHouse(redis, settings)
    try:
        yield house
    finally:
        await house.close()


def ended(*tasks: asyncio.Task[Lease]) -> list[Any]:
    """What came of admissions that are over."""
    return [task.exception() or task.result() for task in tasks]
