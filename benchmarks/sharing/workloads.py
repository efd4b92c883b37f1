"""The workloads of VTC's paper and artifact.

Rates are theirs, in requests a second; `scale` multiplies them, so that another engine is overloaded as much as theirs
was. A seed shifts phases and draws lengths; for the real trace it moves every arrival by up to a second.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.sharing.job import Job
from benchmarks.sharing.replay import Workload

TRACE = Path(__file__).parents[1] / "data" / "vtc_real_trace.jsonl"
LENGTH = 256
PERIOD_S = 60.0

Lengths = tuple[int, int]
# From a seed and a scale to jobs in any order.
Make = Callable[[int, float], list[Job]]


def chance(seed: object) -> Random:
    """Dice that fall the same way for the same seed."""
    return Random(repr(seed))  # noqa: S311 (repeatable, not secret)


def is_on(at_s: float) -> bool:
    """Clients of on/off suites ask in every other minute."""
    return int(at_s // PERIOD_S) % 2 == 0


def even(
    client: str,
    rate: float,
    span_s: tuple[float, float],
    dice: Random,
    lengths: Lengths = (LENGTH, LENGTH),
    **more: bool,
) -> Iterator[Job]:
    """Requests at equal distances, from a random phase on; `on_off=True` leaves every other minute out."""
    start_s, end_s = span_s
    at_s = start_s + dice.random() / rate
    for number in range(int(rate * (end_s - start_s))):
        at_s += 1 / rate
        if not more.get("on_off") or is_on(at_s):
            yield Job(f"{client}-{start_s:g}-{number}", client, at_s * 1000, *lengths)


def poisson(
    client: str, rate: float, end_s: float, dice: Random, lengths: Callable[[Random], Lengths], *, on_off: bool = False
) -> Iterator[Job]:
    """Requests at random times."""
    at_s, number = dice.expovariate(rate), 0
    while at_s < end_s:
        if not on_off or is_on(at_s):
            yield Job(f"{client}-{number}", client, at_s * 1000, *lengths(dice))
        at_s += dice.expovariate(rate)
        number += 1


def rising(client: str, rates: tuple[float, float], end_s: float) -> Iterator[Job]:
    """A rate that grows linearly."""
    at_s = 0.0
    for number in range(int(sum(rates) / 2 * end_s)):
        at_s += 1 / (rates[0] + (rates[1] - rates[0]) * at_s / end_s)
        yield Job(f"{client}-{number}", client, at_s * 1000, LENGTH, LENGTH)


def steady(
    rates: Sequence[float], end_s: float, *, lengths: Lengths = (LENGTH, LENGTH), first_on_off: bool = False
) -> Make:
    """A suite of clients with constant rates."""

    def make(seed: int, scale: float) -> list[Job]:
        return [
            job
            for number, rate in enumerate(rates)
            for job in even(
                *(str(number), rate * scale, (0.0, end_s), chance((seed, number)), lengths),
                on_off=first_on_off and not number,
            )
        ]

    return make


def short_long(short: Lengths, long: Lengths) -> Make:
    """Many small requests beside few large ones."""

    def make(seed: int, scale: float) -> list[Job]:
        return [
            *poisson("0", 8 * scale, 600, chance((seed, 0)), lambda _: short),
            *poisson("1", 1.5 * scale, 600, chance((seed, 1)), lambda _: long),
        ]

    return make


def increase(seed: int, scale: float) -> list[Job]:
    """One constant client, one that grows beyond its share."""
    return [*even("0", 0.5 * scale, (0.0, 600.0), chance(seed)), *rising("1", (0.2 * scale, 2 * scale), 600)]


def poisson_on_off(seed: int, scale: float) -> list[Job]:
    """Random lengths, one client on and off."""

    def lengths(dice: Random) -> Lengths:
        return dice.randint(16, 512), dice.randint(16, 512)

    return [
        *poisson("0", 0.5 * scale, 600, chance((seed, 0)), lengths, on_off=True),
        *poisson("1", 2 * scale, 600, chance((seed, 1)), lengths),
    ]


def dist_shift(seed: int, scale: float) -> list[Job]:
    """Three phases of 300 s: on/off, both backlogged, one under its share."""
    dice = chance(seed)
    phases = (
        [("0", 0.5, True), ("1", 2.0, False)],
        [("0", 1.0, False), ("1", 1.0, False)],
        [("0", 0.5, False), ("1", 1.5, False)],
    )
    return [
        job
        for number, phase in enumerate(phases)
        for client, rate, on_off in phase
        for job in even(client, rate * scale, (300.0 * number, 300.0 * (number + 1)), dice, on_off=on_off)
    ]


def real(seed: int, scale: float) -> list[Job]:
    """The recorded trace; seed 0 is exactly it. It is compressed in time by `scale`."""
    dice = chance(seed)
    jobs = []
    for number, line in enumerate(TRACE.read_text().splitlines()):
        entry = json.loads(line)
        at_s = max(0.0, entry["t"] + (dice.uniform(-1, 1) if seed else 0.0)) / scale
        jobs.append(Job(str(number), entry["client"], at_s * 1000, entry["prompt_len"], entry["output_len"]))
    return jobs


@dataclass(frozen=True, slots=True)
class Suite:
    """A workload of VTC, with what was measured there: (max, mean, variance) of the diff and tokens a second."""

    make: Make
    fcfs: tuple[float, float, float, float] | None
    vtc: tuple[float, float, float, float] | None
    weights: dict[str, int] | None = None

    def workload(self, seed: int, scale: float = 1.0) -> Workload:
        """One replay's worth."""
        jobs = sorted(self.make(seed, scale), key=lambda job: job.arrival_ms)
        return Workload(jobs, weights=self.weights or {})


SUITES = {
    "overload": Suite(steady((1.5, 3), 600), (447, 439, 31, 876), (192.9, 103.8, 6981, 893)),
    "overload-multi": Suite(steady((0.4,) * 3 + (0.6,) * 5, 360), (247.9, 230.8, 1084, 875), (322.2, 162.2, 5151, 875)),
    "overload-weighted": Suite(steady((0.8, 0.8, 1.2, 1.6), 360), None, None, {"0": 100, "1": 200, "2": 300, "3": 400}),
    "proportional": Suite(steady((0.25, 0.5, 1.5), 600), (157, 145, 70, 856), (25.7, 9.9, 41, 883)),
    "on_off_less": Suite(steady((0.5, 2), 600, first_on_off=True), (276, 116, 6774, 875), (69.5, 56.1, 248, 877)),
    "on_off_overload": Suite(steady((2, 3), 600, first_on_off=True), (1317, 434, 127_849, 876), (223, 110, 4990, 879)),
    "poisson_short_long": Suite(short_long((64, 64), (256, 256)), (355, 209, 8469, 1475), (133, 34, 839, 1445)),
    "poisson_short_long_2": Suite(short_long((512, 32), (32, 512)), (1063, 693, 50_766, 1923), (47, 14, 204, 1671)),
    "increase": Suite(increase, (90, 29, 840, 743), (23, 6.5, 55, 744)),
    "dist_shift": Suite(dist_shift, None, (108, 34, 1096, 903)),
    "poisson_on_off_overload": Suite(poisson_on_off, None, None),
    "real": Suite(real, (759.97, 433.53, 32_112, 777), (368.4, 251.66, 6549.16, 779)),
}
