"""How many answers are worth their price on a box as full as this one.

For each size n the best set of models, whatever goes on, and what it comes to:

    V(n) = Q(n) - w_t ln stretch(n) - w_l rho (E(n) - 1)

in times of one answer of one model alone, at the reference's pace (the chair reads READ = 0.04 of that per answer: 400
tokens at 100 a second, read at 2500 a second). First other models, then more answers of the best; or only these, where
the others are so weak that this is worth more on an idle box. Load enters as rho alone, the part of the box that is
taken, and E(n) never falls: each further answer keeps engines busy. So V has decreasing differences in n and rho, and
the size that is worth most never grows with rho (Topkis, "Minimizing a submodular function on a lattice", Operations
Research 26, 1978). The largest size within INDIFFERENT of the best is taken, for which the same holds (take n accepted
at the higher rho, m best at the lower: if m < n, V(n) - V(m) is larger at the lower rho). A council of two that agree
asks nobody else, so the larger one costs less than it seems.
"""

import math
from dataclasses import dataclass
from itertools import combinations

from server.allocator.contention import batch_left
from server.allocator.limits import Limits
from server.allocator.quality import GAINLESS_KINDS, VOTE_KINDS, quality_of
from server.allocator.rosters import may_repeat
from server.allocator.terms import SIZE_MAX, Candidate, Demand, Load, Policy

READ = 0.04
INDIFFERENT = 0.01


@dataclass(frozen=True, slots=True)
class Worth:
    """The size that is worth it, and what one more would add and cost, in quality."""

    size: int
    gain: float = 0.0
    price: float = 0.0


def utilisation(load: Load, limits: Limits) -> float:
    """The part of the slots that is taken, 0 to 1. Who waits or is expected counts as if they had one."""
    demanded = limits.begun + max(limits.waiting, load.waiting_others) + load.expected_requests
    return min(1.0, demanded / limits.slots) if limits.slots else 1.0


def worth(demand: Demand, policy: Policy, limits: Limits, pool: tuple[Candidate, ...], rho: float) -> Worth:
    """The largest size that is worth it, and what the next would come to. The pool must not depend on load."""
    if demand.kind in GAINLESS_KINDS:
        return Worth(1)
    models = 1 if policy.samples_only else len({each.model for each in pool})
    found = _curve(models, demand, policy, limits, pool)
    if models > 1 and may_repeat(policy):
        alone = _curve(1, demand, policy, limits, pool)
        if _idle(alone) > _idle(found) + INDIFFERENT:
            found = alone
    prices = [time + policy.load_price * rho * (work - 1) for _, time, work in found]
    values = [quality - price for (quality, _, _), price in zip(found, prices, strict=True)]
    enough = max(values) - INDIFFERENT
    size = max(at for at, value in enumerate(values, 1) if value >= enough)
    if size == len(found):
        return Worth(size)
    return Worth(size, found[size][0] - found[size - 1][0], prices[size] - prices[size - 1])


# Quality, price of time, and work.
_Value = tuple[float, float, float]


def _curve(models: int, demand: Demand, policy: Policy, limits: Limits, pool: tuple[Candidate, ...]) -> list[_Value]:
    """By size, from 1 on, of so many models at the most."""
    largest = min(policy.size_max, SIZE_MAX, SIZE_MAX if may_repeat(policy) else models)
    return [_of(size, min(size, models), demand, policy, limits, pool) for size in range(1, max(largest, 1) + 1)]


def _idle(curve: list[_Value]) -> float:
    """The most that any size is worth on an idle box."""
    return max(quality - time for quality, time, _ in curve)


def _of(size: int, models: int, demand: Demand, policy: Policy, limits: Limits, pool: tuple[Candidate, ...]) -> _Value:
    """Of the best set of so many answers of so many models."""
    has_chair = size > 1 and demand.kind not in VOTE_KINDS
    extra = size - models
    best: tuple[float, float] | None = None
    for chosen in combinations(pool, models):
        if len({each.model for each in chosen}) < models:
            continue
        seats = [(each.model, each.quality) for each in chosen]
        quality = quality_of(demand.kind, seats + [seats[0]] * extra, gap_max=policy.quality_gap_max)
        stretch = max(
            1
            / limits.left(each.box, len({other.engine for other in chosen if other.box == each.box}))
            / batch_left(1 + extra if each is chosen[0] else 1, each.together)
            for each in chosen
        )
        time = policy.time_price * math.log(stretch + has_chair * (1 + READ * size))
        if best is None or quality - time > best[0] - best[1]:
            best = quality, time
    assert best is not None, "there are so many models"
    work = models - 1 + 1 / batch_left(1 + extra) + has_chair * (1 + READ * size)
    return *best, work
