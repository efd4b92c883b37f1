"""Ours: the real scripts, in a real Redis, in virtual time.

This is the part of a server that talks to the ledger, and nothing else of it: it enters requests, reports on those that
stream every 250 ms and on a first token at once, reaps every second, tells the engines' windows anew every few seconds,
and does what the news say. Nothing is decided here.
"""

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from benchmarks.sharing.job import Job
from benchmarks.sharing.schedulers import Order, Total
from quotas.cost import Cost
from quotas.forecast import Experience, forecast
from quotas.ledger import Entry, Ledger, Progress
from quotas.policy import Limits
from quotas.window import Window
from server.clock import SystemClock
from server.embedded.redis import Redis as EmbeddedRedis

START_MS = 1_000_000
REAP_EVERY_MS = 1_000
WINDOW_EVERY_MS = 5_000
QUEUE_LENGTH_MAX = 1_000_000
OUTPUT_TOKENS_MAX = 1024


@asynccontextmanager
async def redis_url() -> AsyncIterator[str]:
    """A Redis: that at REDIS_URL, where only keys of our own are touched, or one started for the while."""
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    folder = Path(tempfile.mkdtemp(prefix="wf-"))
    redis = EmbeddedRedis(folder, SystemClock())
    try:
        await redis.start()
        yield redis.url
    finally:
        await redis.stop()
        shutil.rmtree(folder, ignore_errors=True)


class LedgerScheduler:
    """Replicas of a server that share the ledger of one box.

    Args:
        windows: of each engine.
        weights: of clients, in percent.
        replicas: how many there are; jobs come to them in turn.
        pauses_max: how often an answer may be paused; 0: the engines cannot go on with one.
    """

    def __init__(
        self,
        redis: Redis,
        windows: Mapping[str, Window],
        weights: Mapping[str, int] | None = None,
        *,
        replicas: int = 1,
        pauses_max: int = 0,
    ) -> None:
        self.redis, self.box = redis, f"sharing-{uuid4().hex}"
        self.ledger = Ledger(redis, self.box, now_ms=START_MS)
        self.windows, self.weights = windows, weights or {}
        self.replicas = [f"replica-{number}" for number in range(replicas)]
        self.dead: set[str] = set()
        self.replica_of: dict[str, str] = {}
        self.errors: list[tuple[str, str]] = []
        self.cost = Cost()
        self._pauses_max = pauses_max
        self._jobs: dict[str, Job] = {}
        self._running: set[str] = set()
        self._experience = Experience()
        self._estimates_ms: dict[str, tuple[int, float]] = {}
        self._orders: list[Order] = []
        self._reaped_ms = self._told_ms = float("-inf")
        self._arrivals = 0

    async def close(self) -> None:
        """Leave nothing in Redis."""
        async for key in self.redis.scan_iter(f"wf:{{{self.box}}}:*", count=1000):
            await self.redis.delete(key)

    def kill(self, replica: str) -> list[str]:
        """It is gone, and with it all its requests, which it tells nobody."""
        self.dead.add(replica)
        self.errors = []
        return [job_id for job_id, owner in self.replica_of.items() if owner == replica]

    def _at(self, now_ms: float) -> None:
        self.ledger.now_ms = START_MS + int(now_ms)

    async def _keep_time(self, now_ms: float) -> None:
        """What replicas do every so often."""
        self._at(now_ms)
        if now_ms - self._told_ms >= WINDOW_EVERY_MS:
            self._told_ms = now_ms
            for engine, window in self.windows.items():
                await self.ledger.dispatch(engine, window)
        if now_ms - self._reaped_ms >= REAP_EVERY_MS:
            self._reaped_ms = now_ms
            await self.ledger.reap()

    async def arrive(self, job: Job, now_ms: float) -> None:
        """Enter it at the next replica."""
        await self._keep_time(now_ms)
        alive = [replica for replica in self.replicas if replica not in self.dead]
        self._arrivals += 1
        replica = self.replica_of[job.id] = alive[self._arrivals % len(alive)]
        self._jobs[job.id] = job
        entry = Entry(
            id=job.id,
            engine=job.engine,
            model="m",
            surface="chat.completions",
            user=job.client,
            key=job.key,
            input_tokens=job.prompt_tokens,
            started_at_ms=START_MS + int(now_ms),
            prompt_cost=self.cost.of(job.prompt_tokens, 0),
            output_tokens_max=OUTPUT_TOKENS_MAX,
            is_revocable=job.is_revocable,
        )
        limits = Limits(weight=self.weights.get(job.client, 100), queue_length_max=None)
        admission = await self.ledger.enqueue(entry, limits, replica=replica, queue_length_max=QUEUE_LENGTH_MAX)
        if admission.state == "running":
            self._start(job, now_ms)
        elif admission.state != "queued":
            self._orders.append(Order("reject", job))

    def _start(self, job: Job, now_ms: float) -> None:
        self._running.add(job.id)
        if estimate := self._estimates_ms.pop(job.id, None):
            estimated_ms, asked_ms = estimate
            self._experience.learn(job.client, estimated_ms, int(now_ms - asked_ms))
        self._orders.append(Order("run", job))

    async def expected_wait_ms(self, job: Job, now_ms: float) -> float | None:
        """What its client would be told now; what becomes of it is learned from."""
        for engine in (await self.ledger.view()).engines:
            standing = forecast(engine).get(job.id)
            if standing and standing.wait_ms is not None:
                self._estimates_ms[job.id] = (standing.wait_ms, now_ms)
                return self._experience.corrected(job.client, standing).wait_ms
        return None

    async def report(self, totals: Sequence[Total], now_ms: float) -> None:
        """One call for each replica; it renews leases."""
        await self._keep_time(now_ms)
        by_replica: dict[str, list[Progress]] = defaultdict(list)
        for total in totals:
            cost = self.cost.of(total.job.prompt_tokens, total.output_tokens)
            first_token_ms = total.first_token_ms if total.has_token else -1
            progress = Progress(total.job.id, total.output_tokens, first_token_ms, cost, self._is_pausable(total))
            by_replica[self.replica_of[total.job.id]].append(progress)
        for replica in self.replicas:
            if replica not in self.dead:
                for request, fact in await self.ledger.charge(replica, by_replica[replica]):
                    if fact in {"lost", "missing"}:
                        self.errors.append((request, fact))

    def _is_pausable(self, total: Total) -> bool:
        return total.has_token and total.pauses < self._pauses_max

    async def requeue(self, total: Total, now_ms: float) -> None:
        """Give up the slot, to go on later."""
        self._at(now_ms)
        job, tokens = total.job, total.output_tokens
        self._running.discard(job.id)
        cost = self.cost.of(job.prompt_tokens, tokens)
        state = await self.ledger.requeue(job.id, job.engine, pause=total.pauses, output_tokens=tokens, cost=cost)
        if state == "running":
            self._start(job, now_ms)
        elif state != "queued":
            self.errors.append((job.id, state))

    async def finish(self, total: Total, now_ms: float) -> None:
        """Settle it."""
        self._at(now_ms)
        job = total.job
        self._running.discard(job.id)
        event = {
            "id": job.id,
            "outcome": "completed" if total.output_tokens == job.output_tokens else "cancelled",
            "input_tokens": job.prompt_tokens,
            "output_tokens": total.output_tokens,
            "first_token_ms": total.queue_ms + total.first_token_ms if total.first_token_ms >= 0 else -1,
            "queue_ms": total.queue_ms,
            "pauses": total.pauses,
            "paused_ms": total.paused_ms,
            "total_ms": int(now_ms - job.arrival_ms),
        }
        cost = self.cost.of(job.prompt_tokens, total.output_tokens)
        await self.ledger.finish(job.id, job.engine, event, cost=cost)

    async def withdraw(self, job: Job, now_ms: float) -> None:
        """Take it back."""
        self._at(now_ms)
        await self.ledger.cancel(job.id)

    async def orders(self, now_ms: float) -> list[Order]:
        """Read the news of every replica."""
        self._at(now_ms)
        for replica in self.replicas:
            while replica not in self.dead and (news := await self.ledger.news(replica, wait_ms=0)):
                kind, request = news
                if kind == "run":
                    self._start(self._jobs[request], now_ms)
                elif request in self._running:
                    self._orders.append(Order("pause" if kind == "pause" else "stop", self._jobs[request]))
        orders, self._orders = self._orders, []
        return orders

    async def settled(self) -> list[dict[str, str]]:
        """The usage events so far."""
        events: Any = await self.redis.xrange(f"wf:{{{self.box}}}:settled")
        return [fields for _, fields in events]
