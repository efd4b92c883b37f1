"""All suites: what runs in them, what is aimed at, and below which quality the build breaks.

A target is what the design asks for. A bound is looser: it lies beyond what seeds and small runs spread over, so that
only a change for the worse breaks it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.sharing import estimates, fairness, faults, neighbours, vtc
from benchmarks.sharing.engine import A10G, A100
from benchmarks.sharing.ours import Case
from benchmarks.sharing.workloads import SUITES

RESERVES = (0, 1, 2, 4)


@dataclass(frozen=True, slots=True)
class Target:
    """A figure is to be at most, or at least, `value`; the build breaks beyond `bound` (None: never)."""

    figure: str
    relation: Literal["≤", "≥"]
    value: float
    bound: float | None = None

    def is_met(self, measured: float, value: float | None = None) -> bool:
        """Whether it is, or whether another value is kept."""
        limit = self.value if value is None else value
        return measured <= limit if self.relation == "≤" else measured >= limit


@dataclass(frozen=True, slots=True)
class Suite:
    """A case that runs once for each seed; `is_small`: also where time is short."""

    title: str
    case: Case
    targets: tuple[Target, ...] = ()
    is_small: bool = False


IDLE = Target("idle with a queue", "≤", 0.005, 0.02)
THROUGHPUT = Target("throughput / best FCFS", "≥", 0.98, 0.94)


def _vtc() -> dict[str, Suite]:
    targets = {
        "real": (
            Target("avg / FCFS", "≤", 0.53, 0.60),
            Target("var / FCFS", "≤", 0.15, 0.30),
            Target("max / FCFS", "≤", 0.50),
            THROUGHPUT,
            Target("ours.light_p99_s", "≤", 17, 25),
            Target("ours.light_p50_s", "≤", 0.5, 0.7),
            IDLE,
        ),
        "overload": (Target("ours.max", "≤", 60), Target("ours.avg", "≤", 10), THROUGHPUT, IDLE),
        "proportional": (
            Target("ours.light_mean_s", "≤", 4.2, 6),
            Target("ours.light_p99_s", "≤", 10.7, 14),
            THROUGHPUT,
            IDLE,
        ),
    }
    suites = {"real": Suite("VTC's real trace", vtc.real, targets["real"], is_small=True)}
    for name in SUITES:
        if name != "real":
            small = name == "proportional"
            suites[name] = Suite(f"VTC's {name}", vtc.published(name), targets.get(name, (THROUGHPUT, IDLE)), small)
    return suites


def _neighbours() -> dict[str, Suite]:
    suites = {}
    for machine in ("A100", "H100"):
        for hog in neighbours.HOGS:
            targets = (
                (Target("p99 / alone", "≤", 20, 30), Target("p99 ms", "≤", 1000, 1500))
                if hog == "long prompts"
                # The small pool of the H100 runs full with every cohort of answers (docs/decisions/0011).
                else (Target("p99 / alone", "≤", 5, 12 if machine == "A100" else None),)
            )
            targets = (*targets, Target("throughput / FCFS", "≥", 0.99 if machine == "A100" else 0.98, 0.95))
            suites[f"{machine} {hog}"] = Suite(
                f"{machine}, 128 slots, hog: {hog}", neighbours.neighbour(machine, hog), targets
            )
    for machine in ("A100", "W16", "W4"):
        for hog in ("decode-heavy", "long prompts"):
            targets = (
                (Target("p99 / alone", "≤", 2, 4),) if hog == "decode-heavy" else (Target("p99 / alone", "≤", 20, 30),)
            )
            suites[f"{machine} {hog} revocable"] = Suite(
                f"{machine}, hog: {hog}, revocable",
                neighbours.neighbour(machine, hog, is_revocable=True),
                targets,
                is_small=machine != "A100" and hog == "decode-heavy",
            )
    return suites


def _pauses() -> dict[str, Suite]:
    """Ways to a slot where there are few of them, and where there is little memory."""
    throughput = Target("throughput / FCFS", "≥", 0.98, 0.90)
    suites = {}
    for machine in ("W16", "W4"):
        for hog in neighbours.HOGS:
            # Who comes while a long prompt is read waits for its end, inside the engine.
            far, near = (None, None) if hog == "long prompts" else (9, 3)
            aims = (Target("p99 / alone", "≤", 5, far), Target("p50 / alone", "≤", 2, near), throughput)
            for way in ("none", "static", "adaptive", "pause", "pause, cached"):
                suites[f"{machine} {hog}, {way}"] = Suite(
                    f"{machine}, hog: {hog}, {way}",
                    neighbours.protected(machine, hog, way),
                    aims if way.startswith("pause") else (),
                    is_small=(machine, hog, way) == ("W4", "decode-heavy", "pause"),
                )
    for machine in ("A100", "H100"):
        for hog in neighbours.HOGS:
            suites[f"{machine} {hog}, pause"] = Suite(
                f"{machine}, 128 slots, hog: {hog}, pause",
                neighbours.protected(machine, hog, "pause"),
                (Target("p99 / alone", "≤", 20 if hog == "long prompts" else 5, 30), throughput),
            )
    return suites


def _reserves() -> dict[str, Suite]:
    return {
        f"reserve {machine} {slots}": Suite(f"{machine}, {slots} slots kept", neighbours.reserve(machine, slots))
        for machine in ("A100", "W16", "W4")
        for slots in RESERVES
        if machine != "W4" or slots < RESERVES[-1]
    }


JAIN = Target("Jain, worst 60 s", "≥", 0.999, 0.99)
EVEN = Target("Jain, whole run", "≥", 0.999, 0.995)
NOTHING_LEAKED = Target("leaked", "≤", 0, 0)
WEIGHTED = (
    JAIN,
    Target("largest gap / 2M", "≤", 0.5, 0.7),
    Target("spread", "≤", 0.005),
    Target("throughput / FCFS", "≥", 0.98, 0.94),
    IDLE,
)

SUITE: Mapping[str, Suite] = {
    **_vtc(),
    **_neighbours(),
    **_pauses(),
    "weights A10G": Suite("weights 1:1:2:4, A10G", fairness.weighted(A10G, 960_000.0), WEIGHTED),
    "weights A100": Suite("weights 1:1:2:4, A100", fairness.weighted(A100, 240_000.0), WEIGHTED),
    "weights small": Suite("weights 1:1:2:4, A10G, short", fairness.weighted(A10G, 300_000.0), (JAIN,), is_small=True),
    "keys": Suite("four keys of one user", fairness.keys, (Target("off 1/n", "≤", 0.02, 0.03),), is_small=True),
    "returning": Suite("a client returns", fairness.returning, (Target("off a half", "≤", 0.02, 0.06),), is_small=True),
    "cancelling": Suite("30 % cancelled", fairness.cancelling, (EVEN, NOTHING_LEAKED), is_small=True),
    "two engines": Suite(
        "two engines, one box",
        fairness.two_engines,
        (EVEN, Target("throughput / two of FCFS", "≥", 0.98, 0.94)),
        is_small=True,
    ),
    "crash": Suite(
        "one of four replicas killed",
        faults.crash,
        (Target("slots back after s", "≤", 6.0, 11.0), NOTHING_LEAKED, Target("lost by mistake", "≤", 0, 0)),
        is_small=True,
    ),
    "estimates": Suite("waiting times that were told", estimates.estimates),
    **_reserves(),
}
