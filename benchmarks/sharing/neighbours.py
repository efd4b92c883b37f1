"""The noisy neighbour: a victim who asks now and then, beside a hog that always has more.

The victim sends 0.2 requests a second at random, 256 tokens in and 128 out; the hog keeps a queue of long prompts, long
answers, or both. What counts is how much later the victim's first token comes than with the engine to itself, and what
that costs in throughput, against FCFS with the same window and the same two clients. Waits that did not end count as
long as they lasted.

`protections` are the ways in which the victim gets a slot where all are taken: somebody's answer ends (none), a slot is
kept (static), a slot is kept while that costs at most a tenth of the throughput (adaptive), or somebody's answer is
paused. What was paused is read again, all of it or what is not in the prompt cache. The first WARM_UP_MS do not count
there: the hog has used little itself, and is as light as the victim.

The first visit is told apart: a victim that has never been here may find slots taken that are kept later.
"""

from collections.abc import Mapping
from dataclasses import replace

from redis.asyncio import Redis

from benchmarks.sharing import metrics
from benchmarks.sharing.engine import A100, BOX4, BOX16, H100, Hardware
from benchmarks.sharing.job import Job
from benchmarks.sharing.ours import SLOTS, Case, Figures, Ours, play, window
from benchmarks.sharing.replay import Backlog, Result, Workload
from benchmarks.sharing.schedulers import Fcfs, Vtc, Windowed
from benchmarks.sharing.workloads import chance, poisson
from quotas.window import Window

VICTIM = "victim"
VICTIM_RATE = 0.2
VICTIM_LENGTHS = (256, 128)
HOGS = {"decode-heavy": (512, 512), "long prompts": (4096, 256), "long answers": (128, 1024)}
MACHINES: Mapping[str, Hardware] = {"A100": A100, "H100": H100, "W16": BOX16, "W4": BOX4}
# Of the throughput, in percent: what the server's settings allow kept slots to cost.
RESERVE_PERCENT_MAX = 10
WARM_UP_MS = 15_000.0
UNTIL_MS, SMALL_UNTIL_MS = 300_000.0, 200_000.0


def victim(seed: int, until_ms: float) -> list[Job]:
    """Now and then."""
    return list(poisson(VICTIM, VICTIM_RATE, until_ms / 1000, chance((seed, VICTIM)), lambda _: VICTIM_LENGTHS))


def beside(hog: str, seed: int, until_ms: float, *, is_revocable: bool = False) -> Workload:
    """The victim and the hog."""
    backlog = Backlog("hog", *HOGS[hog], is_revocable=is_revocable, spread=0.1)
    return Workload(victim(seed, until_ms), (backlog,), until_ms)


def waits(result: Result, from_ms: float = 0.0) -> list[float]:
    """The victim's, in order of arrival."""
    records = [record for record in result.records if record.arrived_ms >= from_ms]
    return metrics.ttfts_ms(records, {VICTIM}, result.ended_ms)


def wasted(result: Result) -> float:
    """The part of all written tokens that went into revoked answers."""
    written = sum(record.output_tokens for record in result.records)
    revoked = sum(record.output_tokens for record in result.records if record.outcome == "revoked")
    return revoked / max(written, 1)


def paused(result: Result) -> Figures:
    """How often answers were paused and for how long, and the longest that one was away."""
    records = [record for record in result.records if record.pauses]
    return {
        "pauses a minute": sum(record.pauses for record in records) / result.ended_ms * 60_000,
        "most of one": max((record.pauses for record in records), default=0),
        "paused s, mean": sum(record.paused_ms for record in records) / max(len(records), 1) / 1000,
        "paused s, most": max((record.paused_ms for record in records), default=0.0) / 1000,
    }


async def beside_hog(
    hardware: Hardware,
    hog: str,
    seed: int,
    ours: Ours,
    *,
    is_revocable: bool = False,
    until_ms: float,
    from_ms: float = 0.0,
) -> tuple[Figures, Result, Result]:
    """Ours against the victim alone and against FCFS; also both results."""
    slots = SLOTS[hardware]
    lone = Workload(victim(seed, until_ms), (), until_ms)
    alone = waits(await play(lone, hardware, Windowed(Fcfs(), slots)), from_ms)
    fcfs = await play(beside(hog, seed, until_ms), hardware, Windowed(Fcfs(), slots), seed)
    result = await ours.play(beside(hog, seed, until_ms, is_revocable=is_revocable), seed)
    first, *others = waits(result)
    got = waits(result, from_ms) if from_ms else [first, *others]
    figures = {
        "alone p99 ms": metrics.quantile(alone, 0.99),
        "p50 ms": metrics.quantile(got, 0.5),
        "p50 / alone": metrics.quantile(got, 0.5) / metrics.quantile(alone, 0.5),
        "p99 ms": metrics.quantile(got if from_ms else others, 0.99),
        "p99 / alone": metrics.quantile(got if from_ms else others, 0.99) / metrics.quantile(alone, 0.99),
        "first visit ms": first,
        "throughput / FCFS": metrics.rate(result) / metrics.rate(fcfs),
        "wasted": wasted(result),
        "idle with a queue": result.idle_ms / result.ended_ms,
        **(paused(result) if ours.can_pause else {}),
    }
    return figures, result, fcfs


def neighbour(machine: str, hog: str, *, is_revocable: bool = False) -> Case:
    """One machine, one hog."""
    hardware = MACHINES[machine]

    async def case(seed: int, redis: Redis, small: bool) -> Figures:  # noqa: FBT001
        until_ms = SMALL_UNTIL_MS if small else UNTIL_MS
        ours = Ours(redis, hardware)
        figures, _, fcfs = await beside_hog(hardware, hog, seed, ours, is_revocable=is_revocable, until_ms=until_ms)
        if small or is_revocable:
            return figures
        plain = await play(beside(hog, seed, until_ms), hardware, Windowed(Vtc(), SLOTS[hardware]), seed)
        return figures | {
            "FCFS p99 ms": metrics.quantile(waits(fcfs), 0.99),
            "VTC p99 ms": metrics.quantile(waits(plain), 0.99),
        }

    return case


def reserve(machine: str, slots: int) -> Case:
    """What slots that are kept for sparse flows buy and cost."""
    hardware = MACHINES[machine]
    gates: Window = window(hardware)

    async def case(seed: int, redis: Redis, small: bool) -> Figures:  # noqa: ARG001, FBT001
        ours = Ours(redis, hardware, replace(gates, reserved_slots=slots))
        return (await beside_hog(hardware, "decode-heavy", seed, ours, is_revocable=False, until_ms=UNTIL_MS))[0]

    return case


def protections(redis: Redis, hardware: Hardware) -> Mapping[str, Ours]:
    """Ways to a slot for a light user."""
    gates = window(hardware)
    adaptive = replace(gates, reserve_percent_max=RESERVE_PERCENT_MAX)
    return {
        "none": Ours(redis, hardware, replace(gates, reserved_slots=0)),
        "static": Ours(redis, hardware, gates),
        "adaptive": Ours(redis, hardware, adaptive),
        "pause": Ours(redis, hardware, adaptive, can_pause=True),
        "pause, cached": Ours(redis, hardware, adaptive, can_pause=True, keeps_prefixes=True),
    }


def protected(machine: str, hog: str, protection: str) -> Case:
    """One machine, one hog, one way to a slot."""
    hardware = MACHINES[machine]

    async def case(seed: int, redis: Redis, small: bool) -> Figures:  # noqa: FBT001
        until_ms = SMALL_UNTIL_MS if small else UNTIL_MS
        ours = protections(redis, hardware)[protection]
        return (await beside_hog(hardware, hog, seed, ours, until_ms=until_ms, from_ms=WARM_UP_MS))[0]

    return case
