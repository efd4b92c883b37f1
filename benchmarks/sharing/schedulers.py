"""What stands between arrivals and the engine: the protocol, and the schedulers that ours is compared with.

All of them but `Direct` hold requests back, at most `slots` of them being in the engine. They see what a gateway sees:
arrivals, tokens that stream by, ends. None of them looks at an answer's length before it is complete.
"""

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from benchmarks.sharing.job import INPUT_PRICE, OUTPUT_PRICE, Job

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done with a job now: "run" it or let it go on, "stop" or "pause" its stream, or "reject" it."""

    verb: Literal["run", "stop", "pause", "reject"]
    job: Job


@dataclass(frozen=True, slots=True)
class Total:
    """How far a job is.

    Args:
        first_token_ms: from its start; -1 before it.
        queue_ms: how long it waited to start.
        has_token: whether there was one since it started, or went on after a pause.
    """

    job: Job
    output_tokens: int
    first_token_ms: int
    queue_ms: int
    has_token: bool = False
    pauses: int = 0
    paused_ms: int = 0


class Scheduler(Protocol):
    """Times are virtual milliseconds. Orders pile up until somebody asks for them."""

    async def arrive(self, job: Job, now_ms: float) -> None:
        """A client asks."""

    async def report(self, totals: Sequence[Total], now_ms: float) -> None:
        """All running jobs, every 250 ms; those with a first token, at once."""

    async def finish(self, total: Total, now_ms: float) -> None:
        """A stream ended, complete or because its client left or because it was stopped."""

    async def withdraw(self, job: Job, now_ms: float) -> None:
        """A client left before its job was started."""

    async def orders(self, now_ms: float) -> list[Order]:
        """What is to be done, since the last time of asking."""


@runtime_checkable
class Pausing(Scheduler, Protocol):
    """One that also orders pauses."""

    async def requeue(self, total: Total, now_ms: float) -> None:
        """A stream was closed as ordered; the job waits to go on."""


class Queue(Protocol):
    """An order of service."""

    def push(self, job: Job) -> None:
        """A job waits."""

    def pop(self) -> Job | None:
        """Whose turn it is."""

    def remove(self, job: Job) -> None:
        """It waits no more."""

    def charge(self, job: Job, service: float) -> None:
        """Its client received that much."""


class Fcfs:
    """First come, first served."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()

    def push(self, job: Job) -> None:
        """At the end."""
        self._jobs.append(job)

    def pop(self) -> Job | None:
        """From the front."""
        return self._jobs.popleft() if self._jobs else None

    def remove(self, job: Job) -> None:
        """Wherever it is."""
        self._jobs.remove(job)

    def charge(self, job: Job, service: float) -> None:
        """Nobody counts."""


class RoundRobin:
    """One request of each client in turn, whatever it costs."""

    def __init__(self) -> None:
        self._jobs: dict[str, deque[Job]] = {}

    def push(self, job: Job) -> None:
        """A client that is new, or was away, comes last."""
        self._jobs.setdefault(job.client, deque()).append(job)

    def pop(self) -> Job | None:
        """The client who waits longest for its turn."""
        for client in self._jobs:
            jobs = self._jobs.pop(client)
            job = jobs.popleft()
            if jobs:
                self._jobs[client] = jobs
            return job
        return None

    def remove(self, job: Job) -> None:
        """A client without jobs has no turn."""
        self._jobs[job.client].remove(job)
        if not self._jobs[job.client]:
            del self._jobs[job.client]

    def charge(self, job: Job, service: float) -> None:
        """Nobody counts."""


class Vtc:
    """Plain VTC: the client with the least service so far; without the lift, LCF."""

    def __init__(self, weights: Mapping[str, int] | None = None, *, lifts: bool = True) -> None:
        self._weights, self._lifts = weights or {}, lifts
        self._jobs: dict[str, deque[Job]] = {}
        self._served: dict[str, float] = {}

    def push(self, job: Job) -> None:
        """A client that comes back is lifted to the others' level, so that absence earns nothing."""
        served = self._served.setdefault(job.client, 0.0)
        if job.client not in self._jobs and self._lifts:
            level = min((self._served[client] for client in self._jobs), default=0.0)
            self._served[job.client] = max(served, level)
        self._jobs.setdefault(job.client, deque()).append(job)

    def pop(self) -> Job | None:
        """The oldest job of the poorest; its prompt is charged here."""
        if not self._jobs:
            return None
        client = min(self._jobs, key=self._served.__getitem__)
        job = self._jobs[client][0]
        self.remove(job)
        self.charge(job, INPUT_PRICE * job.prompt_tokens)
        return job

    def remove(self, job: Job) -> None:
        """A client without jobs is not backlogged."""
        self._jobs[job.client].remove(job)
        if not self._jobs[job.client]:
            del self._jobs[job.client]

    def charge(self, job: Job, service: float) -> None:
        """By weight, in percent."""
        self._served[job.client] += service * 100 / self._weights.get(job.client, 100)


class Windowed:
    """At most `slots` jobs in the engine, the next one by `queue`'s order."""

    def __init__(self, queue: Queue, slots: int = sys.maxsize) -> None:
        self._queue, self._slots = queue, slots
        self._running: dict[str, int] = {}
        self._orders: list[Order] = []

    async def arrive(self, job: Job, now_ms: float) -> None:  # noqa: ARG002
        """Wait for a slot."""
        self._queue.push(job)

    async def report(self, totals: Sequence[Total], now_ms: float) -> None:  # noqa: ARG002
        """Charge what is new."""
        for total in totals:
            self._queue.charge(total.job, OUTPUT_PRICE * (total.output_tokens - self._running[total.job.id]))
            self._running[total.job.id] = total.output_tokens

    async def finish(self, total: Total, now_ms: float) -> None:
        """Charge the rest; a slot is free."""
        await self.report([total], now_ms)
        del self._running[total.job.id]

    async def withdraw(self, job: Job, now_ms: float) -> None:  # noqa: ARG002
        """It costs nothing."""
        self._queue.remove(job)

    async def orders(self, now_ms: float) -> list[Order]:  # noqa: ARG002
        """Fill the window."""
        while len(self._running) < self._slots and (job := self._queue.pop()):
            self._running[job.id] = 0
            self._orders.append(Order("run", job))
        orders, self._orders = self._orders, []
        return orders


class Rpm(Windowed):
    """Requests above a number a minute are rejected, the others come first, come served."""

    def __init__(self, requests_max: int, slots: int = sys.maxsize) -> None:
        super().__init__(Fcfs(), slots)
        self._requests_max = requests_max
        self._counts: dict[tuple[str, int], int] = {}

    async def arrive(self, job: Job, now_ms: float) -> None:
        """Count it in its minute."""
        minute = job.client, int(now_ms // MINUTE_MS)
        self._counts[minute] = self._counts.get(minute, 0) + 1
        if self._counts[minute] > self._requests_max:
            self._orders.append(Order("reject", job))
        else:
            await super().arrive(job, now_ms)
