"""What models leave each other while several engines of one box answer, believed at first and then learned.

`left(k)` is the part of its own rate that each of k busy engines keeps; k times that is what all of them do together.
Two priors:

    seed         1, .85, .75, .65, .55, .45, and .1 less for each more, never below .05
    saturation   min(1, S / k): together they reach S times one model's rate and no more. S = 1.6 in one process or with
                 MPS, 1.0 where the GPU is time-sliced

Measured on an H100 (vLLM replicas with MPS, raw data of "Mind the memory gap", arXiv 2503.08311): .63 to .68 for two,
.34 to .36 for four. So saturation is the default; the seed's table is too hopeful from three on.

What is measured here takes over: of each size the mean of ln(left), where the prior counts as N0 = 5 measurements. What
one size taught moves the prior of the larger ones by as much, else a box that is better than believed at two would
never be allowed to try three. More engines never leave each more (Barlow, Bartholomew, Bremner and Brunk, "Statistical
inference under order restrictions", 1972: pool adjacent violators), and nothing leaves its bounds.

Answers of one model on one engine are another matter: they share its steps, which is nearly free (`batch_left`;
measured on Llama-2-7B in the same data).
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

LEFT_MIN = 0.05
SIZES_MAX = 16
PRIOR_COUNT = 5
# Older measurements fade: boxes change.
COUNT_MAX = 200
SATURATION = 1.6
SEED = (1.0, 0.85, 0.75, 0.65, 0.55, 0.45)
SEED_STEP = 0.1
# Totals that differ by less than this part are the same.
TIE = 0.01
BATCH = ((1, 1.0), (2, 0.96), (4, 0.94), (8, 0.89), (16, 0.78))

Prior = Literal["seed", "saturation"]


def seed_left(k: int) -> float:
    """The seed's table, clamped: without that it falls below zero at eleven."""
    if k <= len(SEED):
        return SEED[max(k, 1) - 1]
    return max(LEFT_MIN, SEED[-1] - SEED_STEP * (k - len(SEED)))


def saturation_left(k: int, total: float = SATURATION) -> float:
    """The saturation law: together they reach `total` times one model's rate."""
    return min(1.0, max(LEFT_MIN, total / max(k, 1)))


class Seen(Struct, frozen=True):
    """Measurements of one size: how many, and the mean of their logarithms."""

    count: int = 0
    log_left: float = 0.0


class Contention(Struct, frozen=True, kw_only=True):
    """What is known of one box.

    Attributes:
        prior: what is believed where nothing was measured.
        total: of the saturation law.
        seen: measurements, of two engines first, then of three, and so on.
    """

    prior: Prior = "saturation"
    total: float = SATURATION
    seen: tuple[Seen, ...] = ()

    def with_sums(self, sums: Mapping[int, tuple[float, int]]) -> "Contention":
        """The same prior with stored measurements: the sum of ln(left) and how many, by the number of engines."""
        means = {k: Seen(min(count, COUNT_MAX), log_sum / count) for k, (log_sum, count) in sums.items() if count > 0}
        sizes = [k for k in means if 1 < k <= SIZES_MAX]
        return replace(self, seen=tuple(means.get(k, Seen()) for k in range(2, max(sizes, default=1) + 1)))

    def left(self, k: int) -> float:
        """What each of k busy engines keeps of its own rate, from LEFT_MIN to 1."""
        curve = self.curve()
        if k <= SIZES_MAX:
            return curve[max(k, 1) - 1]
        return max(LEFT_MIN, curve[-1] * SIZES_MAX / k)

    def curve(self) -> tuple[float, ...]:
        """`left` of 1 to SIZES_MAX engines."""
        logs, counts = [0.0], [float(PRIOR_COUNT)]
        shift = 0.0
        for k in range(2, SIZES_MAX + 1):
            believed = math.log(self._believed(k))
            seen = self.seen[k - 2] if k - 2 < len(self.seen) else Seen()
            count = PRIOR_COUNT + seen.count
            log_left = min(0.0, (PRIOR_COUNT * (believed + shift) + seen.count * seen.log_left) / count)
            shift = log_left - believed
            logs.append(log_left)
            counts.append(float(count))
        return 1.0, *(max(LEFT_MIN, math.exp(each)) for each in _never_rising(logs, counts)[1:])

    def best_size(self) -> int:
        """With how many engines the box does most: beyond, another one takes more from the others than it adds.

        Of sizes that do the same (within TIE) the largest: by the saturation law all from two on do.
        """
        totals = [k * left for k, left in enumerate(self.curve(), 1)]
        enough = max(totals) * (1 - TIE)
        return max(k for k, total in enumerate(totals, 1) if total >= enough)

    def _believed(self, k: int) -> float:
        return seed_left(k) if self.prior == "seed" else saturation_left(k, self.total)


def batch_left(answers: int, together: Sequence[tuple[int, float]] = ()) -> float:
    """What each of so many answers of one model on one engine keeps of the rate of one alone, never more with more.

    Args:
        together: tokens a second of all answers, by the number of answers at a time, as a calibration has them;
            empty: a prior. Between two of them it is interpolated, beyond the last the total stays as it is.
    """
    known: tuple[tuple[int, float], ...] = BATCH
    alone = next((rate for count, rate in together if count == 1), 0.0)
    if alone > 0:
        known = ((1, 1.0),)
        for count, rate in sorted(together):
            if count > 1:
                known = (*known, (count, min(known[-1][1], max(LEFT_MIN, rate / count / alone))))
    for (fewer, above), (more, below) in pairwise(known):
        if answers <= more:
            return max(LEFT_MIN, above + (below - above) * (max(answers, fewer) - fewer) / (more - fewer))
    last, left = known[-1]
    return max(LEFT_MIN, left * last / max(answers, last))


def _never_rising(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The closest sequence that never rises, by weighted squares: pools of neighbours take their mean."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        pool = (value, weight, 1)
        while pools and pools[-1][0] < pool[0]:
            before = pools.pop()
            whole = before[1] + pool[1]
            pool = ((before[0] * before[1] + pool[0] * pool[1]) / whole, whole, before[2] + pool[2])
        pools.append(pool)
    return [value for value, _, count in pools for _ in range(count)]
