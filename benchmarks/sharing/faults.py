"""A replica dies: its streams end, nobody renews its leases, and its slots must come back to the others.

They are back when the ledger knows of no lease but those of streams that are alive.
"""

from redis.asyncio import Redis

from benchmarks.sharing import metrics
from benchmarks.sharing.engine import A10G
from benchmarks.sharing.ledger_scheduler import LedgerScheduler
from benchmarks.sharing.ours import Figures, window
from benchmarks.sharing.replay import Backlog, Replay, Workload

KILLED_MS = 100_250.0
UNTIL_MS = 240_000.0
LOOK_EVERY_MS = 50.0


async def crash(seed: int, redis: Redis, small: bool) -> Figures:  # noqa: ARG001, FBT001
    """Four clients and four replicas, one of which is killed."""
    backlogs = tuple(Backlog(f"client-{number}", 256, 256, spread=0.3, depth=16) for number in range(4))
    scheduler = LedgerScheduler(redis, {"a": window(A10G)}, replicas=4)
    back_ms: list[float] = []
    try:
        replay = Replay(Workload((), backlogs, UNTIL_MS), scheduler, {"a": A10G}, seed=seed)
        killed_ms = KILLED_MS + 137.0 * seed

        async def look() -> None:
            if (await scheduler.ledger.load("a"))[0] == len(replay.flying):
                back_ms.append(replay.now_ms - killed_ms)
            else:
                replay.at(replay.now_ms + LOOK_EVERY_MS, look)

        async def kill() -> None:
            replay.lose(scheduler.kill("replica-1"))
            replay.at(replay.now_ms + LOOK_EVERY_MS, look)

        replay.at(killed_ms, kill)
        result = await replay.run()
        running, queued = await scheduler.ledger.load("a")
    finally:
        await scheduler.close()
    got = list(metrics.shares(result.samples, killed_ms + 10_000, UNTIL_MS).values())
    return {
        "slots back after s": back_ms[0] / 1000 if back_ms else UNTIL_MS / 1000,
        "leaked": abs(running - len(replay.flying)) + abs(queued - len(replay.queued)),
        "Jain afterwards": metrics.jain(got),
        "lost by mistake": len(scheduler.errors),
    }
