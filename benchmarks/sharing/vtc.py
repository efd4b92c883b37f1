"""VTC's workloads on today's engine: what unfairness, throughput and waiting they bring, scheduler by scheduler."""

from collections.abc import Callable

from redis.asyncio import Redis

from benchmarks.sharing import metrics
from benchmarks.sharing.engine import A10G
from benchmarks.sharing.job import Record
from benchmarks.sharing.ours import TUNED_SLOTS, Case, Figures, Ours, play
from benchmarks.sharing.replay import Backlog, Workload
from benchmarks.sharing.schedulers import Fcfs, RoundRobin, Rpm, Scheduler, Vtc, Windowed
from benchmarks.sharing.workloads import SUITES

LIGHT_CLIENTS = 20
REAL_SLOTS = TUNED_SLOTS[A10G]
# Windows among which the best FCFS is looked for: the best on the real trace, and none.
FCFS_SLOTS = (28, 256)
PUBLISHED_RATE = 876.0
CAPACITY_MS = 120_000.0


def diff_figures(records: list[Record], light: int) -> Figures:
    """What VTC measures, and the first tokens of the clients with the fewest requests."""
    diff = metrics.service_diff(records)
    waits = metrics.ttfts_ms(records, metrics.lightest(records, light))
    return {
        "max": diff.largest,
        "avg": diff.mean,
        "var": diff.variance,
        "tok_s": metrics.throughput(records),
        "light_mean_s": sum(waits) / len(waits) / 1000,
        "light_p50_s": metrics.quantile(waits, 0.5) / 1000,
        "light_p99_s": metrics.quantile(waits, 0.99) / 1000,
        "rejected": sum(record.outcome == "rejected" for record in records),
    }


def named(prefix: str, figures: Figures) -> Figures:
    """Figures of one scheduler among several."""
    return {f"{prefix}.{name}": value for name, value in figures.items()}


async def best_fcfs(workload: Workload) -> float:
    """Throughput of first come, first served with the best window, in tokens a second."""
    return max(
        [metrics.throughput((await play(workload, A10G, Windowed(Fcfs(), slots))).records) for slots in FCFS_SLOTS]
    )


BASELINES: dict[str, Callable[[], Scheduler]] = {
    "direct": lambda: Windowed(Fcfs()),
    "fcfs": lambda: Windowed(Fcfs(), REAL_SLOTS),
    "rr": lambda: Windowed(RoundRobin(), REAL_SLOTS),
    "rpm5": lambda: Rpm(5, REAL_SLOTS),
    "rpm20": lambda: Rpm(20, REAL_SLOTS),
    "rpm30": lambda: Rpm(30, REAL_SLOTS),
    "lcf": lambda: Windowed(Vtc(lifts=False), REAL_SLOTS),
    "vtc": lambda: Windowed(Vtc(), REAL_SLOTS),
}


async def real(seed: int, redis: Redis, small: bool) -> Figures:  # noqa: FBT001
    """The real trace; seeds move arrivals by up to a second."""
    suite = SUITES["real"]
    figures: Figures = {}
    for name, make in BASELINES.items():
        if not small or name in {"fcfs", "vtc"}:
            records = (await play(suite.workload(seed), A10G, make())).records
            figures |= named(name, diff_figures(records, LIGHT_CLIENTS))
    best = figures["fcfs.tok_s"] if small else await best_fcfs(suite.workload(seed))
    result = await Ours(redis, A10G).play(suite.workload(seed))
    ours = diff_figures(result.records, LIGHT_CLIENTS)
    return (
        figures
        | named("ours", ours)
        | {
            "avg / FCFS": ours["avg"] / figures["fcfs.avg"],
            "var / FCFS": ours["var"] / figures["fcfs.var"],
            "max / FCFS": ours["max"] / figures["fcfs.max"],
            "throughput / best FCFS": ours["tok_s"] / best,
            "idle with a queue": result.idle_ms / result.ended_ms,
        }
    )


async def scale() -> float:
    """How much faster than VTC's engine ours is, by which rates grow, so that it is overloaded as much."""
    workload = Workload((), (Backlog("x", 256, 256, depth=64),), CAPACITY_MS)
    return metrics.rate(await play(workload, A10G, Windowed(Fcfs(), REAL_SLOTS))) / PUBLISHED_RATE


def published(name: str) -> Case:
    """A synthetic suite."""
    suite = SUITES[name]

    async def case(seed: int, redis: Redis, small: bool) -> Figures:  # noqa: ARG001, FBT001
        factor = await scale()
        weights = suite.weights
        figures: Figures = {}
        for scheduler, queue in (("fcfs", Fcfs()), ("vtc", Vtc(weights))):
            result = await play(suite.workload(seed, factor), A10G, Windowed(queue, REAL_SLOTS))
            figures |= named(scheduler, diff_figures(result.records, 1))
        result = await Ours(redis, A10G).play(suite.workload(seed, factor))
        ours = diff_figures(result.records, 1)
        return (
            figures
            | named("ours", ours)
            | {
                "throughput / best FCFS": ours["tok_s"] / await best_fcfs(suite.workload(seed, factor)),
                "idle with a queue": result.idle_ms / result.ended_ms,
            }
        )

    return case
