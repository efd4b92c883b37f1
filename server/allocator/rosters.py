"""Who could sit together: sets of models, and of several answers of them.

A roster of n answers has m models, one candidate each, and n - m further answers, all of one of these or spread evenly.
Of six candidates there are 63 sets, and a few hundred rosters of up to six answers: all of them are looked at. Which
rosters there are does not depend on load; and any that has more than one answer is one again without one of them,
whoever leads it. allocate.py needs both.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

from server.allocator.terms import Candidate, Load, Policy

CANDIDATES_MAX = 6
# Named ones are asked once each, so there are fewer rosters of them.
NAMED_MAX = 10


@dataclass(frozen=True, slots=True)
class Roster:
    """Candidates, and how many answers of each."""

    places: tuple[tuple[Candidate, int], ...]

    @property
    def size(self) -> int:
        """Answers."""
        return sum(answers for _, answers in self.places)

    @property
    def models(self) -> int:
        """Different ones."""
        return len({each.model for each, _ in self.places})

    @property
    def seats(self) -> tuple[tuple[str, float], ...]:
        """Model and quality of each answer."""
        return tuple((each.model, each.quality) for each, answers in self.places for _ in range(answers))

    def engines(self, box: str) -> frozenset[str]:
        """Those of this box that it would use."""
        return frozenset(each.engine for each, _ in self.places if each.box == box)

    @property
    def boxes(self) -> frozenset[str]:
        """Those that it would use."""
        return frozenset(each.box for each, _ in self.places)


def may_repeat(policy: Policy) -> bool:
    """Whether one model may give several answers."""
    return policy.samples_only or (policy.samples and not policy.members)


def eligible(load: Load, policy: Policy) -> tuple[Candidate, ...]:
    """Those that were named, or all; the best first. Load changes nothing of it.

    Where nobody has said anything of those that were named, who named them knows best: they keep their order.
    """
    if not policy.members:
        return best_first(load.candidates)
    places = {model: place for place, model in enumerate(policy.members)}
    named = [each for each in load.candidates if each.model in places]
    is_known = any(each.observations > 0 for each in named)
    ranks = {each: -each.quality if is_known else 0.0 for each in named}
    return tuple(sorted(named, key=lambda each: (ranks[each], places[each.model], each.engine)))


def best_first(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """By quality; of equals by name, so that nothing depends on the order in which they are told."""
    return tuple(sorted(candidates, key=lambda each: (-each.quality, each.model, each.engine)))


def admissible(candidates: tuple[Candidate, ...], policy: Policy) -> tuple[Candidate, ...]:
    """Of the eligible those that are good enough to be members; the best few of them. Load changes nothing of it.

    Who was chosen by name needs not be good.
    """
    if policy.members:
        return candidates[:NAMED_MAX]
    best = max((each.quality for each in candidates), default=0.0)
    return tuple(each for each in candidates if best - each.quality <= policy.quality_gap_max)[:CANDIDATES_MAX]


def rosters(pool: tuple[Candidate, ...], size: int, policy: Policy) -> Iterator[Roster]:
    """All of this size; of equally good ones the first is taken, so the best models come first."""
    for models in range(min(size, len(pool)), 0, -1):
        extra = size - models
        if extra and not may_repeat(policy):
            return
        for chosen in combinations(pool, models):
            names = {each.model for each in chosen}
            if policy.samples_only and len(names) > 1:
                continue
            if not may_repeat(policy) and len(names) < models:
                continue
            if not extra:
                yield Roster(tuple((each, 1) for each in chosen))
                continue
            for repeated in chosen:
                yield Roster(tuple((each, 1 + extra if each is repeated else 1) for each in chosen))
            if extra > 1 and models > 1:
                even, more = divmod(size, models)
                yield Roster(tuple((each, even + (at < more)) for at, each in enumerate(chosen)))
