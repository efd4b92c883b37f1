"""One replay: a workload, a scheduler and engines, event by event in virtual time.

The scheduler stands beside the engines, not inside: an order reaches the engine a hop later, so a slot that a step's
end sets free is filled one step after at the earliest, as in life. The replay keeps what only somebody outside can
know: each client's true service over time, and for how long somebody waited although there was room.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from random import Random

from benchmarks.sharing.engine import Engine, Hardware
from benchmarks.sharing.job import Job, Outcome, Record
from benchmarks.sharing.schedulers import Order, Pausing, Scheduler, Total

REPORT_MS = 250.0
HOP_MS = 1.0
SAMPLE_MS = 1_000.0
# A prompt cache holds whole blocks (vLLM's usual length).
BLOCK_TOKENS = 16
# The length of an answer until some were seen, and how fast it is learned.
USUAL_TOKENS, LEARNING = 256.0, 1 / 8

Act = Callable[[], Awaitable[None]]
# Whether every one of these heads of the queue fits beside the records in flight, given a client's usual answer.
Room = Callable[[list[Record], list[Job], Callable[[str], float]], bool]
# How long this job is expected to wait, in milliseconds.
Forecast = Callable[[Job], Awaitable[float | None]]


@dataclass(frozen=True, slots=True)
class Backlog:
    """A client that always has `depth` requests waiting: for each that starts, the next one arrives.

    Args:
        spread: lengths vary by this part of them, evenly.
        leaving: this part of the requests is left by its client at a random moment of `patience_ms`.
    """

    client: str
    prompt_tokens: int
    output_tokens: int
    depth: int = 8
    from_ms: float = 0.0
    engine: str = "a"
    is_revocable: bool = False
    key: str = ""
    spread: float = 0.0
    leaving: float = 0.0
    patience_ms: float = 0.0

    def job(self, number: int, now_ms: float, dice: Random) -> Job:
        """Its next request."""
        return Job(
            id=f"{self.client}{self.key}-{self.engine}-{number}",
            client=self.client,
            arrival_ms=now_ms,
            prompt_tokens=round(self.prompt_tokens * dice.uniform(1 - self.spread, 1 + self.spread)),
            output_tokens=round(self.output_tokens * dice.uniform(1 - self.spread, 1 + self.spread)),
            engine=self.engine,
            is_revocable=self.is_revocable,
            key=self.key,
            leaves_after_ms=dice.uniform(0, self.patience_ms) if dice.random() < self.leaving else None,
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """Who asks for what. It is over when everything is served, or at `until_ms`, which backlogs need."""

    jobs: Iterable[Job] = ()
    backlogs: tuple[Backlog, ...] = ()
    until_ms: float = float("inf")
    weights: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """The state at one moment: service of clients so far, who waits, and each engine's steps."""

    at_ms: float
    service: dict[str, float]
    waiting: set[str]
    steps: dict[str, int]


@dataclass(slots=True)
class Result:
    """What a replay leaves. `idle_ms`: somebody waited although there was room. Estimates: (predicted, actual), ms."""

    engines: dict[str, Engine]
    records: list[Record] = field(default_factory=list)
    ended_ms: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    idle_ms: float = 0.0
    estimates: list[tuple[float, float]] = field(default_factory=list)


class Replay:
    """Events and who takes them; `run` once."""

    def __init__(
        self,
        workload: Workload,
        scheduler: Scheduler,
        hardware: Mapping[str, Hardware],
        *,
        room: Room | None = None,
        forecast: Forecast | None = None,
        keeps_prefixes: bool = False,
        seed: int = 0,
    ) -> None:
        self.workload, self.scheduler = workload, scheduler
        self.engines = {name: Engine(each) for name, each in hardware.items()}
        self.now_ms = 0.0
        self.records: dict[str, Record] = {}
        self.queued: dict[str, Record] = {}
        self.flying: dict[str, Record] = {}
        self.paused: dict[str, Record] = {}
        self.result = Result(self.engines)
        self._room, self._forecast = room, forecast
        self._keeps_prefixes = keeps_prefixes
        self._dice = Random(seed)  # noqa: S311 (repeatable, not secret)
        self._events: list[tuple[float, int, Act]] = []
        self._planned = 0
        self._settled: dict[str, float] = defaultdict(float)
        self._backlog_of: dict[str, Backlog] = {}
        self._predicted: dict[str, float] = {}
        self._is_idle = False
        self._usual_tokens: dict[str, float] = {}
        self._open = 0

    def at(self, at_ms: float, act: Act) -> None:
        """Let `act` happen at a time; things of one time happen in the order in which they were planned."""
        self._planned += 1
        heappush(self._events, (at_ms, self._planned, act))

    async def run(self) -> Result:
        """Everything, to the end."""
        for job in self.workload.jobs:
            self._open += 1
            self.at(job.arrival_ms, lambda job=job: self._arrive(job))  # type: ignore[misc]
        for backlog in self.workload.backlogs:
            self._open += 1
            for _ in range(backlog.depth):
                self.at(backlog.from_ms, lambda backlog=backlog: self._refill(backlog))  # type: ignore[misc]
        self.at(REPORT_MS, self._report)
        self.at(0.0, self._sample)
        while self._events and self._open:
            at_ms, _, act = heappop(self._events)
            if at_ms > self.workload.until_ms:
                break
            if self._is_idle:
                self.result.idle_ms += at_ms - self.now_ms
            self.now_ms = at_ms
            await act()
        for record in self.flying.values():
            record.output_tokens = self._length(record)
        self.result.records = list(self.records.values())
        self.result.ended_ms = self.now_ms
        return self.result

    async def _refill(self, backlog: Backlog) -> None:
        job = backlog.job(len(self.records), self.now_ms, self._dice)
        self._backlog_of[job.id] = backlog
        self._open += 1
        await self._arrive(job)

    async def _arrive(self, job: Job) -> None:
        self.records[job.id] = self.queued[job.id] = Record(job, self.now_ms)
        await self.scheduler.arrive(job, self.now_ms)
        await self._follow()
        if job.leaves_after_ms is not None:
            self.at(self.now_ms + job.leaves_after_ms, lambda: self._leave(self.records[job.id]))
        if self._forecast and job.id in self.queued and (predicted_ms := await self._forecast(job)) is not None:
            self._predicted[job.id] = predicted_ms

    async def _follow(self) -> None:
        """Do what the scheduler wants done."""
        for order in await self.scheduler.orders(self.now_ms):
            await self._obey(order)
        self._is_idle = self._room is not None and self._has_room()

    async def _obey(self, order: Order) -> None:
        job = order.job
        record = self.records[job.id]
        match order.verb:
            case "run" if job.id in self.paused:
                del self.paused[job.id]
                self.flying[job.id] = record
                record.paused_ms += self.now_ms - record.paused_at_ms
                self.at(self.now_ms + HOP_MS, lambda: self._submit(record))
            case "run":
                del self.queued[job.id]
                self.flying[job.id] = record
                record.dispatched_ms = self.now_ms
                record.usual_tokens = self._usual(job.client)
                if job.id in self._predicted:
                    self.result.estimates.append((self._predicted[job.id], self.now_ms - record.arrived_ms))
                self.at(self.now_ms + HOP_MS, lambda: self._submit(record))
                self._replace(job)
            case "reject":
                self._forget(record, "rejected")
            case "pause":
                await self._pause(record)
            case "stop":
                await self._stop(record, "revoked")

    def _replace(self, job: Job) -> None:
        if backlog := self._backlog_of.get(job.id):
            self.at(self.now_ms, lambda: self._refill(backlog))

    def _forget(self, record: Record, outcome: Outcome) -> None:
        """It ends before it began."""
        del self.queued[record.job.id]
        record.outcome = outcome
        record.ended_ms = self.now_ms
        self._open -= 1

    async def _leave(self, record: Record) -> None:
        """Its client leaves."""
        if record.job.id in self.queued:
            self._forget(record, "cancelled")
            self._replace(record.job)
            await self.scheduler.withdraw(record.job, self.now_ms)
            await self._follow()
        else:
            await self._stop(record, "cancelled")

    async def _submit(self, record: Record) -> None:
        if record.outcome == "open":
            kept, cached = record.kept_tokens, 0
            if record.pauses and self._keeps_prefixes:
                cached = (record.tokens_to_read - 1) // BLOCK_TOKENS * BLOCK_TOKENS
            self.engines[record.job.engine].submit(record.job, kept=kept, cached=cached)
            record.is_submitted = True
            self._step(record.job.engine)

    async def _pause(self, record: Record) -> None:
        """Its stream is closed, and it waits to go on; the engine hears of it a hop later."""
        assert isinstance(self.scheduler, Pausing)
        record.output_tokens = record.kept_tokens = self._length(record)
        record.is_submitted = record.has_token = False
        record.pauses += 1
        record.paused_at_ms = self.now_ms
        del self.flying[record.job.id]
        self.paused[record.job.id] = record
        self.at(self.now_ms + HOP_MS, lambda: self._close(record))
        await self.scheduler.requeue(self._total(record), self.now_ms)
        await self._follow()

    async def _close(self, record: Record) -> None:
        """The engine hears that nobody listens any more; what it has written since is lost."""
        engine = self.engines[record.job.engine]
        if engine.knows(record.job):
            engine.cancel(record.job)

    async def _stop(self, record: Record, outcome: Outcome) -> None:
        """End a stream before its time."""
        if record.outcome == "open":
            self.cut(record, outcome)
            await self.scheduler.finish(self._total(record), self.now_ms)
            await self._follow()

    def cut(self, record: Record, outcome: Outcome) -> None:
        """The engine stops, and nobody is told."""
        record.output_tokens = self._length(record)
        engine = self.engines[record.job.engine]
        if engine.knows(record.job):
            engine.cancel(record.job)
        self._end(record, outcome)

    def lose(self, ids: Iterable[str]) -> None:
        """Whoever cared for these jobs died; clients with a backlog ask again."""
        for record in [self.records[job_id] for job_id in ids]:
            if record.job.id in self.flying or record.job.id in self.paused:
                self.cut(record, "lost")
            elif record.job.id in self.queued:
                self._forget(record, "lost")
                self._replace(record.job)

    def _end(self, record: Record, outcome: Outcome) -> None:
        del (self.paused if record.job.id in self.paused else self.flying)[record.job.id]
        record.outcome = outcome
        record.ended_ms = self.now_ms
        self._settled[record.job.client] += record.service
        self._open -= 1

    def _length(self, record: Record) -> int:
        engine = self.engines[record.job.engine]
        is_there = record.is_submitted and engine.knows(record.job)
        return engine.output_tokens(record.job) if is_there else record.kept_tokens

    def _total(self, record: Record) -> Total:
        first_ms = int(record.first_token_ms - record.dispatched_ms) if record.has_begun else -1
        queue_ms, paused_ms = int(record.dispatched_ms - record.arrived_ms), int(record.paused_ms)
        tokens = record.output_tokens
        return Total(record.job, tokens, first_ms, queue_ms, record.has_token, record.pauses, paused_ms)

    def _step(self, name: str) -> None:
        """Let an engine that rests go on."""
        engine = self.engines[name]
        if not engine.is_stepping and (step_ms := engine.begin()) is not None:
            self.at(self.now_ms + step_ms, lambda: self._end_step(name))

    async def _end_step(self, name: str) -> None:
        outcome = self.engines[name].end()
        begun = [record for job in outcome.first_tokens if (record := self.records[job.id]).is_submitted]
        for record in begun:
            record.has_token = True
            record.output_tokens = record.kept_tokens + 1
            if not record.has_begun:
                record.first_token_ms = self.now_ms
        finished = {job.id for job in outcome.finished if self.records[job.id].is_submitted}
        if fresh := [self._total(record) for record in begun if record.job.id not in finished]:
            await self.scheduler.report(fresh, self.now_ms)
        for job in outcome.finished:
            record = self.records[job.id]
            if job.id not in finished:
                continue  # it was paused, and this token came too late
            record.output_tokens = job.output_tokens
            self._learn(job)
            self._end(record, "completed")
            await self.scheduler.finish(self._total(record), self.now_ms)
        if finished or begun:
            await self._follow()
        self._step(name)

    async def _report(self) -> None:
        for record in self.flying.values():
            record.output_tokens = self._length(record)
        await self.scheduler.report([self._total(record) for record in self.flying.values()], self.now_ms)
        await self._follow()
        self.at(self.now_ms + REPORT_MS, self._report)

    async def _sample(self) -> None:
        service = dict(self._settled)
        for record in (*self.flying.values(), *self.paused.values()):
            record.output_tokens = self._length(record)
            service[record.job.client] = service.get(record.job.client, 0.0) + record.service
        waiting = {record.job.client for record in self.queued.values()}
        steps = {name: engine.steps for name, engine in self.engines.items()}
        self.result.samples.append(Sample(self.now_ms, service, waiting, steps))
        self.at(self.now_ms + SAMPLE_MS, self._sample)

    def _usual(self, client: str) -> float:
        """The length of its answers lately; everybody's, where it had none."""
        return self._usual_tokens.get(client) or self._usual_tokens.get("", USUAL_TOKENS)

    def _learn(self, job: Job) -> None:
        for key in (job.client, ""):
            usual = self._usual_tokens.get(key, job.output_tokens)
            self._usual_tokens[key] = usual + LEARNING * (job.output_tokens - usual)

    def _has_room(self) -> bool:
        heads: dict[str, Job] = {}
        for record in (*self.paused.values(), *self.queued.values()):
            heads.setdefault(record.job.client, replace(record.job, prompt_tokens=record.tokens_to_read))
        return bool(heads and self._room and self._room(list(self.flying.values()), list(heads.values()), self._usual))
