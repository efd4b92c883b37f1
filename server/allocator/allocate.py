"""Who answers now: a leader, its fellows, a chair, and why it is not one more.

Sizes must never grow when the load gets worse. Taking the roster with the greatest J = Q - P does not give that:

- P compares with one model alone. Where that becomes slower (long prompts, a busy engine), a council costs less in
  comparison, and the best size grows.
- Where a limit forbids the best roster, the next best may be larger.

So the size comes first. Let K(x) be the rosters that keep all limits under load x. Every limit is such that K(x') is a
part of K(x) when x' is worse (limits.py), so the largest size in K never grows. `worth` depends on load through one
number that no worse load lowers, and never grows with it (worth.py). What was asked for, policy, quota and the ceiling
of steadiness are given. The size is the least of all these, at least 1, and so it never grows either. A roster of K
stays in K without one of its members, as long as its leader stays; hence there is one of exactly that size. Among these
the one with the greatest J is taken, each different model counting a little more. That costs little: J loses at most
what the best member is better than others that may sit, and those are at most `quality_gap_max` below.

The leader is the best of the roster whose first token comes in time. So is who answers alone: J would take a weaker
one that costs less, and nobody else speaks to make up for it. Where there is no roster at all, one model
answers: the best that can begin in time, also a weaker one if the ladder's step `smaller_model` is on, else the
soonest.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from server.allocator import reasons
from server.allocator.estimate import Estimates
from server.allocator.limits import Breach, Contentions, Limits
from server.allocator.rosters import Roster, admissible, best_first, eligible, may_repeat, rosters
from server.allocator.terms import (
    SIZE_MAX,
    Allocation,
    Binding,
    Candidate,
    Demand,
    Load,
    Placement,
    Policy,
    Predicted,
)
from server.allocator.worth import utilisation, worth

__all__ = [
    "SIZE_MAX",
    "Allocation",
    "Binding",
    "Candidate",
    "Demand",
    "Load",
    "Placement",
    "Policy",
    "Predicted",
    "allocate",
    "room",
]

# What makes a council smaller because of what goes on, not because of who asks for what.
OF_LOAD: frozenset[Binding] = frozenset({"first_token", "speed", "memory", "waiting", "steady"})
# What another model counts more than another answer of the same, beside what it is worth.
DIVERSITY = 0.01


@dataclass(frozen=True, slots=True)
class _Cap:
    """A bound of the size that does not ask for rosters."""

    size: int
    binding: Binding
    sentence: str


def allocate(
    demand: Demand, load: Load, policy: Policy, contention: Contentions, ceiling: int | None = None
) -> Allocation:
    """Decide who answers.

    Args:
        contention: of every box, or by box.
        ceiling: what steadiness allows now; None: anything.

    Raises:
        ValueError: there is no candidate, or none of those that were named.
    """
    candidates = eligible(load, policy)
    if not candidates:
        raise ValueError("No model can answer this.")
    limits = Limits(demand, load, policy, contention)
    members = admissible(candidates, policy)
    fitting = tuple(each for each in members if _fits(each, demand))
    rho = utilisation(load, limits)
    wanted = policy.size_wanted or len(set(policy.members)) * (not policy.samples_only) or policy.size_max
    wanted = max(wanted, 1)
    caps = _caps(demand, policy, limits, candidates, members, rho)
    cap = max(1, min([wanted, *(each.size for each in caps)]))
    possible = _largest(fitting, cap, policy, limits)
    size = max(1, possible)
    if ceiling is not None:
        size = min(size, max(ceiling, 1))
    estimates = Estimates(demand, policy, limits, candidates[0], rho)
    binding: Binding
    if possible:
        kept = [roster for roster in rosters(fitting, size, policy) if limits.allow(roster)]
        roster, leader, chair, predicted = _best(kept, load, estimates, fitting)
    else:
        leader = _alone(candidates, members, demand, policy, limits)
        roster, chair = Roster(((leader, 1),)), None
        predicted = estimates.predict(roster, leader, None)
    is_asked = policy.size_wanted is not None or bool(policy.members)
    if size < possible:
        binding, sentence = "steady", reasons.of_steady(possible)
    elif size < cap:
        binding, sentence = _hindered(size, fitting, policy, limits)
    elif is_asked and size == wanted:
        is_late = predicted.first_token_ms > policy.first_token_ms_max
        binding, sentence = "wanted", reasons.of_wanted(predicted.first_token_ms if is_late else None)
    else:
        least = min(caps, key=lambda each: max(each.size, 1))
        binding, sentence = least.binding, least.sentence
    steps = ["smaller_council"] if size < wanted and binding in OF_LOAD else []
    if leader not in members:
        steps.append("smaller_model")
    return Allocation(
        members=_seated(roster, leader),
        chair=chair.model if chair else None,
        size=size,
        wanted=wanted,
        reason=f"{size} of {wanted}: {sentence}",
        binding=binding,
        steps=tuple(step for step in steps if step in policy.steps),
        predicted=predicted,
    )


def room(load: Load, policy: Policy, contention: Contentions, demand: Demand | None = None) -> int:
    """The largest council that the box could carry now for a usual question: what `Steady.step` wants to know."""
    asked = replace(policy, size_wanted=policy.size_max, members=(), samples_only=False, samples=True, tokens_left=None)
    return allocate(demand or Demand(), load, asked, contention).size


def _fits(candidate: Candidate, demand: Demand) -> bool:
    needed = demand.context_tokens or demand.prompt_tokens + demand.answer_tokens
    return candidate.context_tokens_max is None or needed <= candidate.context_tokens_max


def _caps(
    demand: Demand,
    policy: Policy,
    limits: Limits,
    candidates: tuple[Candidate, ...],
    members: tuple[Candidate, ...],
    rho: float,
) -> list[_Cap]:
    """The bounds that do not ask for rosters; of equal ones the first is named."""
    caps = [_Cap(min(policy.size_max, SIZE_MAX), "policy", reasons.of_policy(policy))]
    if not may_repeat(policy):
        names = {each.model for each in members}
        others = [each for each in candidates if each.model not in names]
        if others and len(members) < len(candidates) and not policy.members:
            below = candidates[0].quality - others[0].quality
            caps.append(_Cap(len(names), "quality", reasons.of_quality(below, policy.quality_gap_max)))
        else:
            caps.append(_Cap(len(names), "models", reasons.of_models(len(names))))
    if policy.tokens_left is not None:
        each = max(1, demand.prompt_tokens + demand.answer_tokens)
        caps.append(_Cap(policy.tokens_left // each, "quota", reasons.of_quota(policy.tokens_left, each)))
    if policy.size_wanted is None and not policy.members:
        found = worth(demand, policy, limits, members, rho)
        caps.append(_Cap(found.size, "worth", reasons.of_worth(found, found.size)))
    return caps


def _largest(pool: tuple[Candidate, ...], cap: int, policy: Policy, limits: Limits) -> int:
    """The largest size up to the cap of which a roster keeps all limits; 0: there is none."""
    for size in range(1, cap + 1):
        if not any(limits.allow(roster) for roster in rosters(pool, size, policy)):
            return size - 1
    return cap


def _hindered(size: int, pool: tuple[Candidate, ...], policy: Policy, limits: Limits) -> tuple[Binding, str]:
    """Which limit keeps it from one more."""
    breach = _nearest(rosters(pool, size + 1, policy), limits)
    if breach is None:
        return "models", reasons.of_models(len(pool))
    return breach.binding, reasons.of_breach(breach, size)


def _nearest(larger: Iterable[Roster], limits: Limits) -> Breach | None:
    """What hinders the roster that comes nearest to being possible: breaches of few kinds, none of them far off."""
    nearest: Breach | None = None
    least = (0, 0.0)
    for roster in larger:
        breaches = limits.breaches(roster)
        worst = max(breaches, key=lambda each: each.severity)
        distance = len({each.binding for each in breaches}), worst.severity
        if nearest is None or distance < least:
            nearest, least = worst, distance
    return nearest


def _best(
    kept: list[Roster], load: Load, estimates: Estimates, order: tuple[Candidate, ...]
) -> tuple[Roster, Candidate, Candidate | None, Predicted]:
    """Of these the roster with the greatest J, with its leader and chair; of single ones that of the best.

    A council is several models: of equals the one with more of them is taken (DIVERSITY). Under load answers of one
    model take the place of others, since their price is less.
    """
    # Named ones are in the order of their names where their quality is a guess; others have it from their quality.
    ranks = {each: place if estimates.policy.members else -each.quality for place, each in enumerate(order)}

    def rank(each: Candidate) -> tuple[float, float]:
        return ranks[each], estimates.limits.first_token_ms(each)

    if kept[0].size == 1:
        kept = [min(kept, key=lambda roster: rank(roster.places[0][0]))]
    best: tuple[Roster, Candidate, Candidate | None, Predicted] | None = None
    most = 0.0
    for roster in kept:
        leader = min(estimates.limits.leaders(roster), key=rank)
        chair = _chair(roster, leader, load, estimates)
        predicted = estimates.predict(roster, leader, chair)
        value = predicted.quality - predicted.price + DIVERSITY * roster.models
        if best is None or value > most:
            best, most = (roster, leader, chair, predicted), value
    assert best is not None, "one of this size keeps all limits"
    return best


def _chair(roster: Roster, leader: Candidate, load: Load, estimates: Estimates) -> Candidate | None:
    """Who makes one answer of several: the named one, else the most skilled that is there now; the leader if equal."""
    if roster.size == 1:
        return None
    sitting = [leader, *(each for each, _ in roster.places if each is not leader)]
    everybody = best_first(load.candidates)
    others = [
        each
        for each in everybody
        if not estimates.policy.members
        and each not in sitting
        and each.is_resident
        and estimates.limits.free_slots[each.engine] > 0
    ]
    named = [each for each in (*sitting, *everybody) if each.model == estimates.policy.chair]
    return named[0] if named else max((*sitting, *others), key=lambda each: each.chair)


def _alone(
    candidates: tuple[Candidate, ...],
    members: tuple[Candidate, ...],
    demand: Demand,
    policy: Policy,
    limits: Limits,
) -> Candidate:
    """Who answers alone where every roster breaks a limit."""
    chosen = candidates if "smaller_model" in policy.steps else members
    able = [each for each in chosen if _fits(each, demand)] or list(chosen)
    in_time = [each for each in able if limits.first_token_ms(each) <= policy.first_token_ms_max]
    return in_time[0] if in_time else min(able, key=limits.first_token_ms)


def _seated(roster: Roster, leader: Candidate) -> tuple[Placement, ...]:
    """The members: the leader first, then the other models by quality, then further answers of each, numbered."""
    others = sorted((each for each, _ in roster.places if each != leader), key=lambda each: -each.quality)
    answers = {each.model: number for each, number in roster.places}
    members = [
        Placement(model=each.model, engine=each.engine, sample=sample, is_leader=each == leader and sample == 0)
        for sample in range(max(answers.values()))
        for each in (leader, *others)
        if sample < answers[each.model]
    ]
    return tuple(members)
