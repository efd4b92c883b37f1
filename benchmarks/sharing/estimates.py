"""How good the waiting times are that people are told: on the real trace, every few requests that have to wait."""

from redis.asyncio import Redis

from benchmarks.sharing.engine import A10G
from benchmarks.sharing.job import Job
from benchmarks.sharing.ledger_scheduler import LedgerScheduler
from benchmarks.sharing.metrics import quantile
from benchmarks.sharing.ours import Figures, window
from benchmarks.sharing.replay import Replay
from benchmarks.sharing.workloads import SUITES

EVERY, SMALL_EVERY = 2, 16
# Shorter waits are over before anybody has read what they are.
NOTICED_MS = 1_000
FACTOR = 2


async def estimates(seed: int, redis: Redis, small: bool) -> Figures:  # noqa: FBT001
    """Predicted at arrival against what came."""
    every = SMALL_EVERY if small else EVERY
    replay: Replay
    scheduler = LedgerScheduler(redis, {"a": window(A10G)})

    async def ask(job: Job) -> float | None:
        return await scheduler.expected_wait_ms(job, replay.now_ms) if int(job.id) % every == 0 else None

    try:
        replay = Replay(SUITES["real"].workload(seed), scheduler, {"a": A10G}, forecast=ask)
        result = await replay.run()
    finally:
        await scheduler.close()
    noticed = [(predicted, actual) for predicted, actual in result.estimates if actual >= NOTICED_MS]
    ratios = [predicted / actual for predicted, actual in noticed]
    errors = [abs(predicted - actual) / actual for predicted, actual in noticed]
    return {
        "asked": len(noticed),
        "predicted / actual, median": quantile(ratios, 0.5),
        "error, median": quantile(errors, 0.5),
        "error, p90": quantile(errors, 0.9),
        "within a factor of two": sum(1 / FACTOR <= ratio <= FACTOR for ratio in ratios) / max(len(ratios), 1),
    }
