"""From figures of many seeds to tables."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from benchmarks.sharing.ours import Figures
from benchmarks.sharing.suites import SUITE, Target

# From here to 1, what is missing counts.
NEARLY_ONE = 0.95
ARTIFACT = {
    "overload": "FCFS 447/439/31, 876; VTC 193/104/6981, 893",
    "overload-multi": "FCFS 248/231/1084, 875; VTC 322/162/5151, 875",
    "proportional": "FCFS 157/145/70, 856; VTC 25.7/9.9/41, 883",
    "on_off_less": "FCFS 276/116/6774, 875; VTC 69.5/56.1/248, 877",
    "on_off_overload": "FCFS 1317/434/127849, 876; VTC 223/110/4990, 879",
    "poisson_short_long": "FCFS 355/209/8469, 1475; VTC 133/34/839, 1445",
    "poisson_short_long_2": "FCFS 1063/693/50766, 1923; VTC 47/14/204, 1671",
    "increase": "FCFS 90/29/840, 743; VTC 23/6.5/55, 744",
    "dist_shift": "VTC 108/34/1096, 903",
    "real": "FCFS 760/434/32112, 777; VTC 368/252/6549, 779",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure over all seeds."""

    mean: float
    spread: float

    def __str__(self) -> str:
        return f"{number(self.mean)} ± {number(self.spread)}" if self.spread else number(self.mean)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and what came of it."""

    suite: str
    target: Target
    measured: Measured

    @property
    def is_met(self) -> bool:
        """The mean over the seeds reaches the target."""
        return self.target.is_met(self.measured.mean)

    @property
    def is_broken(self) -> bool:
        """The mean lies beyond the bound."""
        return self.target.bound is not None and not self.target.is_met(self.measured.mean, self.target.bound)


def number(value: float) -> str:
    """With about three digits."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    if NEARLY_ONE < abs(value) < 1:
        digits = 4
    return f"{value:.{min(digits, 5)}f}"


def measured(runs: Sequence[Figures]) -> dict[str, Measured]:
    """Mean and spread of every figure."""
    return {
        figure: Measured(mean(values), stdev(values) if len(values) > 1 else 0.0)
        for figure in runs[0]
        for values in [[run[figure] for run in runs]]
    }


def verdicts(results: Mapping[str, Sequence[Figures]]) -> list[Verdict]:
    """All targets of the suites that ran."""
    return [
        Verdict(name, target, measured(runs)[target.figure])
        for name, runs in results.items()
        for target in SUITE[name].targets
    ]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def target_table(found: Iterable[Verdict]) -> str:
    """Target, measured, met or missed."""
    return table(
        ["suite", "figure", "target", "measured", ""],
        [
            [
                SUITE[verdict.suite].title,
                verdict.target.figure,
                f"{verdict.target.relation} {number(verdict.target.value)}",
                str(verdict.measured),
                "broken" if verdict.is_broken else "met" if verdict.is_met else "**missed**",
            ]
            for verdict in found
        ],
    )


def scheduler_table(name: str, runs: Sequence[Figures]) -> str:
    """One row for each scheduler of a suite of VTC's."""
    figures = measured(runs)
    columns = ("max", "avg", "var", "tok_s", "light_mean_s", "light_p50_s", "light_p99_s", "rejected")
    schedulers = dict.fromkeys(figure.split(".")[0] for figure in figures if "." in figure)
    rows = [[scheduler, *(str(figures[f"{scheduler}.{column}"]) for column in columns)] for scheduler in schedulers]
    published = f"\nVTC's artifact, on its own engine: {ARTIFACT[name]}.\n" if name in ARTIFACT else ""
    head = ["", "max", "avg", "var", "tokens/s", "light TTFT mean s", "p50 s", "p99 s", "rejected"]
    return f"### {SUITE[name].title}\n\n{table(head, rows)}{published}"


def plain_table(results: Mapping[str, Sequence[Figures]]) -> str:
    """Suites whose figures are the same, one below the other."""
    everything = {name: measured(runs) for name, runs in results.items()}
    columns = list(dict.fromkeys(figure for figures in everything.values() for figure in figures))
    rows = [
        [SUITE[name].title, *(str(figures[column]) if column in figures else "" for column in columns)]
        for name, figures in everything.items()
    ]
    return table(["", *columns], rows)
