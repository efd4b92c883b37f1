"""From answers to figures, with how sure they are.

A share of right answers has Wilson's interval (Wilson 1927), which holds for few questions and for shares near 0 and 1.
A figure beside the leader alone is the geometric mean of the ratios question by question, and its interval comes from
drawing the questions again with replacement (percentile bootstrap), as does that of a difference of shares. Questions
for which one of the two gave no answer are left out of ratios; they count as wrong. All at 95 %.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from statistics import NormalDist, fmean, median

from msgspec import Struct

from benchmarks.council_bench.asking import Council, Heard
from benchmarks.council_bench.questions import Question
from benchmarks.council_bench.ways import Way

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
DRAWS = 2000
SEED = 1

Results = dict[str, list[Heard]]


class Interval(Struct, frozen=True):
    """A figure, and between what it lies; of `count` questions."""

    value: float
    low: float
    high: float
    count: int


class Bound(Struct, frozen=True):
    """What kept councils from being larger."""

    count: int
    example: str


class WayFigures(Struct, frozen=True, kw_only=True):
    """One way beside the leader alone.

    Attributes:
        size: members that sat, on average; None for a model alone.
        failed: questions without an answer.
        right: share. `gained` and `lost` are questions that it had right and the leader alone had not, and reverse.
        gain: difference of the shares.
        any_right: share of questions for which any member was right, whatever the council made of it.
        first, answer, total: ratios of the times until anything, the answer's first piece, and the end.
        asked, answered: ratios of the tokens.
        agreement: the largest opinion's share on average, where at least two answered.
        leaders, strategies, methods: how often each.
        bounds: what kept councils from being larger, how often, and the server's last sentence about it.
        failures: what members that gave no answer said, and how often.
    """

    name: str
    size: float | None
    questions: int
    failed: int
    right: Interval
    gained: int
    lost: int
    gain: Interval | None
    any_right: Interval | None
    first: Interval | None
    answer: Interval | None
    total: Interval | None
    asked: Interval | None
    answered: Interval | None
    agreement: float | None
    leaders: dict[str, int]
    strategies: dict[str, int]
    methods: dict[str, int]
    bounds: dict[str, Bound]
    failures: dict[str, int]


class Slowdown(Struct, frozen=True):
    """A member's rate in a council by its own rate alone."""

    way: str
    model: str
    rate: Interval


class Alone(Struct, frozen=True):
    """A model alone: medians in milliseconds, tokens and tokens per second; None without an answer."""

    model: str
    first_ms: float | None
    answer_ms: float | None
    total_ms: float | None
    asked: float | None
    answered: float | None
    tokens_per_s: float | None


def wilson(right: int, count: int) -> Interval:
    """A share and its interval; all of 0 to 1 without any."""
    if count == 0:
        return Interval(0.0, 0.0, 1.0, 0)
    share = right / count
    scale = 1 + Z * Z / count
    middle = (share + Z * Z / (2 * count)) / scale
    half = Z * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count)) / scale
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)), count)


def drawn(values: Sequence[float], of: Callable[[float], float] = float) -> Interval | None:
    """The mean and its bootstrap interval, both passed through `of`; None without values."""
    if not values:
        return None
    chance = Random(SEED)  # noqa: S311 (the same interval every time)
    means = sorted(fmean(chance.choices(values, k=len(values))) for _ in range(DRAWS))
    tail = round(DRAWS * (1 - CONFIDENCE) / 2)
    return Interval(of(fmean(values)), of(means[tail]), of(means[-1 - tail]), len(values))


def ratio(pairs: Sequence[tuple[float | None, float | None]]) -> Interval | None:
    """The geometric mean of first by second, over the pairs that have both."""
    return drawn([math.log(one / other) for one, other in pairs if one and other], math.exp)


def way_figures(way: Way, results: Results, leader: str, questions: Sequence[Question]) -> WayFigures:
    """All figures of one way."""
    heard, beside = results[way.name], results[leader]
    right, base = rights(heard, questions), rights(beside, questions)
    pairs = [(one, other) for one, other in zip(heard, beside, strict=True) if not (one.error or other.error)]
    councils = [each.council for each in heard if each.council is not None]
    any_right = [
        any(question.is_right(part.text) for part in each.council.parts if _has_answered(part.role, part.state))
        for each, question in zip(heard, questions, strict=True)
        if each.council is not None
    ]
    agreements = [
        each.agreement for each in councils if sum(_has_answered(part.role, part.state) for part in each.parts) > 1
    ]
    is_leader = way.name == leader
    return WayFigures(
        name=way.name,
        size=fmean(each.size for each in councils) if councils else None,
        questions=len(heard),
        failed=sum(each.error is not None for each in heard),
        right=wilson(sum(right), len(right)),
        gained=sum(one and not other for one, other in zip(right, base, strict=True)),
        lost=sum(other and not one for one, other in zip(right, base, strict=True)),
        gain=None if is_leader else drawn([one - other for one, other in zip(right, base, strict=True)]),
        any_right=wilson(sum(any_right), len(any_right)) if any_right else None,
        first=None if is_leader else ratio([(one.first_ms, other.first_ms) for one, other in pairs]),
        answer=None if is_leader else ratio([(one.answer_ms, other.answer_ms) for one, other in pairs]),
        total=None if is_leader else ratio([(one.total_ms, other.total_ms) for one, other in pairs]),
        asked=None if is_leader else ratio([(one.prompt_tokens, other.prompt_tokens) for one, other in pairs]),
        answered=None
        if is_leader
        else ratio([(one.completion_tokens, other.completion_tokens) for one, other in pairs]),
        agreement=fmean(agreements) if agreements else None,
        leaders=dict(Counter(each.leader for each in councils)),
        strategies=dict(Counter(each.strategy for each in councils)),
        methods=dict(Counter(each.method for each in councils)),
        bounds=_bounds(councils),
        failures=dict(_failures(heard)),
    )


def slowdowns(ways: Sequence[Way], results: Results, alone: dict[str, str]) -> list[Slowdown]:
    """What is left of each member's rate, for each way; `alone` is the way of each model by itself."""
    found = []
    for way in ways:
        rates: dict[str, list[tuple[float | None, float | None]]] = {}
        for index, each in enumerate(results[way.name]):
            parts = each.council.parts if each.council is not None else ()
            members = [part for part in parts if part.role == "member" and part.text]
            # Who answered alone has met nobody.
            for part in members if len(members) > 1 else ():
                if part.model in alone:
                    by_itself = results[alone[part.model]][index].tokens_per_s
                    rates.setdefault(part.model, []).append((part.tokens_per_s, by_itself))
        found += [
            Slowdown(way.name, model, left) for model, pairs in rates.items() if (left := ratio(pairs)) is not None
        ]
    return found


def alone_figures(model: str, heard: Sequence[Heard]) -> Alone:
    """What a model takes by itself."""
    answered = [each for each in heard if each.error is None]

    def middle(of: Callable[[Heard], float | None]) -> float | None:
        values = [value for each in answered if (value := of(each)) is not None]
        return median(values) if values else None

    return Alone(
        model,
        middle(lambda each: each.first_ms),
        middle(lambda each: each.answer_ms),
        middle(lambda each: each.total_ms),
        middle(lambda each: each.prompt_tokens),
        middle(lambda each: each.completion_tokens),
        middle(lambda each: each.tokens_per_s),
    )


def rights(heard: Sequence[Heard], questions: Sequence[Question]) -> list[bool]:
    """Which answers are right; one that broke off is not."""
    return [
        each.error is None and question.is_right(each.text) for each, question in zip(heard, questions, strict=True)
    ]


def _bounds(councils: Sequence[Council]) -> dict[str, Bound]:
    smaller = [each for each in councils if each.size < each.wanted]
    counts = Counter(each.binding for each in smaller)
    examples = {each.binding: each.reason for each in smaller}
    return {binding: Bound(count, examples[binding]) for binding, count in counts.items()}


def _has_answered(role: str, state: str) -> bool:
    return role == "member" and state == "done"


def _failures(heard: Sequence[Heard]) -> Counter[str]:
    """Requests without an answer, and members without one that were not just dropped."""
    found = Counter(each.error for each in heard if each.error is not None)
    for each in heard:
        for part in each.council.parts if each.council is not None else ():
            if part.state in {"failed", "late", "revoked"}:
                found[f"{part.label} ({part.model}, {part.role}) {part.state}: {part.reason}"] += 1
    return found
