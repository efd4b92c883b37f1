"""Who gets how much when everybody always wants more: weights, keys, absence, cancelled requests, several engines."""

from redis.asyncio import Redis

from benchmarks.sharing import metrics
from benchmarks.sharing.engine import A10G, Hardware
from benchmarks.sharing.ledger_scheduler import LedgerScheduler
from benchmarks.sharing.ours import TUNED_SLOTS, Case, Figures, Ours, play, window
from benchmarks.sharing.replay import Backlog, Replay, Workload
from benchmarks.sharing.schedulers import Fcfs, Scheduler, Vtc, Windowed
from quotas.window import Window

WARM_UP_MS, WINDOW_MS = 60_000.0, 60_000.0
WEIGHTS = {"a": 100, "b": 100, "c": 200, "d": 400}
SHAPES = {"a": (256, 256), "b": (64, 512), "c": (512, 128), "d": (128, 256)}
STEPS = 600
MEAN = (256, 256)


def weighted(hardware: Hardware, until_ms: float) -> Case:
    """Four backlogged clients with weights 1:1:2:4 and requests of different shapes."""
    backlogs = tuple(Backlog(client, *shape, spread=0.3) for client, shape in SHAPES.items())
    workload = Workload((), backlogs, until_ms, WEIGHTS)

    async def case(seed: int, redis: Redis, small: bool) -> Figures:  # noqa: ARG001, FBT001
        result = await Ours(redis, hardware).play(workload, seed)
        fcfs = await play(workload, hardware, Windowed(Fcfs(), TUNED_SLOTS[hardware]), seed)
        got = list(metrics.shares(result.samples, WARM_UP_MS, result.ended_ms, WEIGHTS).values())
        gap = metrics.largest_gap(result, WEIGHTS, WARM_UP_MS)
        return {
            "Jain, worst 60 s": metrics.worst_jain(result, WEIGHTS, window_ms=WINDOW_MS, warm_up_ms=WARM_UP_MS),
            "Jain, whole run": metrics.jain(got),
            "spread": (max(got) - min(got)) / (sum(got) / len(got)),
            "largest gap": gap,
            "largest gap / 2M": gap / (2 * hardware.pool_tokens),
            "throughput / FCFS": metrics.rate(result) / metrics.rate(fcfs),
            "idle with a queue": result.idle_ms / result.ended_ms,
        }

    return case


async def keys(seed: int, redis: Redis, small: bool) -> Figures:  # noqa: FBT001
    """One user with four API keys against three with one."""
    backlogs = [Backlog("many", *MEAN, key=f"-{number}", spread=0.3) for number in range(4)]
    backlogs += [Backlog(f"one-{number}", *MEAN, spread=0.3) for number in range(3)]
    result = await Ours(redis, A10G).play(Workload((), tuple(backlogs), 240_000.0 if small else 480_000.0), seed)
    got = metrics.shares(result.samples, WARM_UP_MS, result.ended_ms)
    share = got["many"] / sum(got.values())
    return {"share": share, "off 1/n": abs(share - 1 / len(got)) * len(got)}


async def returning(seed: int, redis: Redis, small: bool) -> Figures:  # noqa: ARG001, FBT001
    """One of two clients comes back after minutes in which the other had everything; its part of the next 600 steps."""
    back_ms = 120_000.0 + 997.0 * seed
    backlogs = (Backlog("stayed", *MEAN, spread=0.3), Backlog("back", *MEAN, from_ms=back_ms, spread=0.3))
    workload = Workload((), backlogs, back_ms + 60_000)
    slots = TUNED_SLOTS[A10G]
    figures = {}
    runs: dict[str, Scheduler] = {"LCF": Windowed(Vtc(lifts=False), slots), "VTC": Windowed(Vtc(), slots)}
    results = {name: await play(workload, A10G, scheduler, seed) for name, scheduler in runs.items()}
    results["ours"] = await Ours(redis, A10G).play(workload, seed)
    for name, result in results.items():
        since = [sample for sample in result.samples if sample.at_ms >= back_ms]
        then = [sample for sample in since if sample.steps["a"] - since[0].steps["a"] <= STEPS]
        got = {
            client: then[-1].service.get(client, 0) - then[0].service.get(client, 0) for client in ("back", "stayed")
        }
        figures[f"{name} share"] = got["back"] / sum(got.values())
    return figures | {"off a half": abs(figures["ours share"] - 0.5)}


async def cancelling(seed: int, redis: Redis, small: bool) -> Figures:  # noqa: FBT001
    """Three clients, one of which leaves 30 % of its requests, queued or streaming. Nothing may leak or be gained."""
    until_ms = 240_000.0 if small else 480_000.0
    backlogs = (
        Backlog("fickle", *MEAN, spread=0.3, leaving=0.3, patience_ms=30_000),
        *(Backlog(f"loyal-{number}", *MEAN, spread=0.3) for number in range(2)),
    )
    gates = window(A10G)
    scheduler = LedgerScheduler(redis, {"a": gates})
    try:
        replay = Replay(Workload((), backlogs, until_ms), scheduler, {"a": A10G}, seed=seed)
        result = await replay.run()
        running, queued = await scheduler.ledger.load("a")
    finally:
        await scheduler.close()
    got = list(metrics.shares(result.samples, WARM_UP_MS, result.ended_ms).values())
    return {
        "Jain, whole run": metrics.jain(got),
        "cancelled": sum(record.outcome == "cancelled" for record in result.records),
        "leaked": abs(running - len(replay.flying)) + abs(queued - len(replay.queued)),
        "lost": len(scheduler.errors),
    }


async def two_engines(seed: int, redis: Redis, small: bool) -> Figures:  # noqa: FBT001
    """Engines a and b; one client uses both, one each of them. All shall get the same, and no engine shall rest."""
    until_ms = 240_000.0 if small else 480_000.0
    both = [Backlog("both", *MEAN, engine=engine, spread=0.3) for engine in "ab"]
    single = [Backlog(f"only-{engine}", *MEAN, engine=engine, spread=0.3) for engine in "ab"]
    gates: Window = window(A10G)
    scheduler = LedgerScheduler(redis, {"a": gates, "b": gates})
    try:
        workload = Workload((), (*both, *single), until_ms)
        result = await Replay(workload, scheduler, {"a": A10G, "b": A10G}, seed=seed).run()
    finally:
        await scheduler.close()
    fcfs = await play(Workload((), (both[0], single[0]), until_ms), A10G, Windowed(Fcfs(), TUNED_SLOTS[A10G]), seed)
    got = metrics.shares(result.samples, WARM_UP_MS, result.ended_ms)
    return {
        "Jain, whole run": metrics.jain(list(got.values())),
        "throughput / two of FCFS": metrics.rate(result) / metrics.rate(fcfs) / 2,
    }
