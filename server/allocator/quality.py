"""What a set of answers is worth, and what is known of each model's skill.

Open questions. Mixture-of-Agents measured it with the aggregator held fixed (arXiv 2406.04692, table 3; AlpacaEval 2,
won against a reference): of 1, 2, 3, 6 models .478, .588, .580, .613, of as many answers of one model .478, .545, .561,
.567. MIXED and SELF are these, not falling, with 4 and 5 in between. A part won is logistic in strength (Bradley and
Terry, "Rank analysis of incomplete block designs", 1952), so a gain is moved to another model's quality in log-odds: it
stays below 1, and a model that is nearly always right gains little. Members below the best add less: the gain is
multiplied by the mean of their factors, 1 for an equal and 0 for one that is `gap_max` below, who is not admitted.
That a weak member draws the others down is what local runs show (council.md, section 1.1: 90.0 % with, 92.5 % without).

Answers that can be counted. Chen et al. ("Are more LM calls all you need?", arXiv 2403.02419): of K votes the majority
is right with F(K) = a I(p1) + (1 - a) I(p2), I(p) the regularized incomplete beta function at (K+1)/2, (K+1)/2, where
questions are easy (p1) or hard (p2): on hard ones more votes make it worse. Here a = 1/2 and p = q +- SPREAD, so that
F(1) = q, and five votes of a model with .56 give .59, as measured on MedQA (arXiv 2311.17371).

A greeting, a rewriting, a translation gain nothing.

Skills. Each model has, by kind of question and role, a Beta posterior. The prior is worth PRIOR_WEIGHT observations,
and all evidence together at most EVIDENCE_MAX. Who was best stays best until another one surpasses it with P(q1 > q2)
of at least SURPASS: from equal beginnings that takes six picks of one over the other in a row, so chance does not do
it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist

from msgspec import Struct

MIXED = (0.478, 0.588, 0.590, 0.598, 0.606, 0.613)
SELF = (0.478, 0.545, 0.561, 0.563, 0.565, 0.567)
# What both curves gain in all, compared.
SAMPLE = (SELF[-1] - SELF[0]) / (MIXED[-1] - MIXED[0])
QUALITY_MIN, QUALITY_MAX = 0.01, 0.99
SPREAD = 0.15
VOTE_KINDS = frozenset({"vote"})
GAINLESS_KINDS = frozenset({"greeting", "rewrite", "translate"})
# What is believed of a model that nobody knows: parts won, and of answers that can be counted parts right.
PRIOR, PRIOR_VOTE = 0.5, 0.65
PRIOR_WEIGHT = 10.0
EVIDENCE_MAX = 200.0
PERSON_MAX = 10.0
SURPASS = 0.99


class Skill(Struct, frozen=True):
    """What is known of a model with one kind of question, in one role. Parts of wins and losses count as parts."""

    wins: float = 0.0
    losses: float = 0.0
    prior: float = PRIOR

    @property
    def mean(self) -> float:
        """Of the posterior."""
        alpha, beta = self._posterior()
        return alpha / (alpha + beta)

    @property
    def deviation(self) -> float:
        """Standard deviation of the posterior."""
        alpha, beta = self._posterior()
        whole = alpha + beta
        return math.sqrt(alpha * beta / (whole * whole * (whole + 1)))

    @property
    def lower(self) -> float:
        """What it is at least, with a probability of SURPASS (normal approximation)."""
        return max(0.0, self.mean - NormalDist().inv_cdf(SURPASS) * self.deviation)

    def observe(self, *, won: float = 0.0, lost: float = 0.0) -> "Skill":
        """With this much more of evidence. Raises ValueError if that is less than nothing."""
        if not (won >= 0 and lost >= 0) or math.isinf(won + lost):
            raise ValueError(f"{won} wins and {lost} losses cannot be.")
        return Skill(self.wins + won, self.losses + lost, self.prior)

    def _posterior(self) -> tuple[float, float]:
        prior = min(max(self.prior, QUALITY_MIN), QUALITY_MAX)
        weight = min(1.0, EVIDENCE_MAX / max(self.wins + self.losses, 1.0))
        return prior * PRIOR_WEIGHT + self.wins * weight, (1 - prior) * PRIOR_WEIGHT + self.losses * weight


def prior_of(kind: str) -> float:
    """What is believed of any model with this kind of question."""
    return PRIOR_VOTE if kind in VOTE_KINDS else PRIOR


def pooled(people: Iterable[tuple[float, float]], prior: float = PRIOR) -> Skill:
    """What several people's wins and losses say together; each counts for PERSON_MAX observations at the most."""
    skill = Skill(prior=prior)
    for wins, losses in people:
        weight = min(1.0, PERSON_MAX / max(wins + losses, 1.0))
        skill = skill.observe(won=wins * weight, lost=losses * weight)
    return skill


def surpasses(one: Skill, other: Skill) -> float:
    """The probability that the first is better, by the normal approximation of both posteriors."""
    spread = math.hypot(one.deviation, other.deviation)
    return 0.5 * math.erfc((other.mean - one.mean) / (spread * math.sqrt(2)))


def ranked(skills: Mapping[str, Skill], standing: Sequence[str] = ()) -> tuple[str, ...]:
    """The models, best first, where a later one has passed an earlier one only with enough evidence.

    Args:
        standing: the order until now; those that are not in it come after, by prior and name.
    """
    known = [model for model in dict.fromkeys(standing) if model in skills]
    new = sorted(skills.keys() - set(known), key=lambda model: (-skills[model].prior, model))
    left, order = [*known, *new], []
    while left:
        best = left[0]
        for model in left[1:]:
            if surpasses(skills[model], skills[best]) >= SURPASS:
                best = model
        left.remove(best)
        order.append(best)
    return tuple(order)


def settled(skills: Mapping[str, Skill], standing: Sequence[str] = ()) -> dict[str, float]:
    """The qualities that decisions are made from: posterior means, but in the order of `ranked`, best first.

    Whoever has a higher mean than one that it has not surpassed is held just below it.
    """
    qualities: dict[str, float] = {}
    ceiling = 1.0
    for model in ranked(skills, standing):
        qualities[model] = min(skills[model].mean, math.nextafter(ceiling, 0.0))
        ceiling = qualities[model]
    return qualities


def quality_of(kind: str, seats: Sequence[tuple[str, float]], *, gap_max: float) -> float:
    """What a set of answers is worth, 0 to 1.

    Args:
        seats: model and its quality, of each answer.

    Raises:
        ValueError: there is no answer.
    """
    if not seats:
        raise ValueError("No answer is worth nothing that could be told.")
    qualities = sorted((_bounded(quality) for _, quality in seats), reverse=True)
    best = qualities[0]
    if kind in GAINLESS_KINDS or len(seats) == 1:
        return best
    if kind in VOTE_KINDS:
        return majority(sum(qualities) / len(qualities), len(qualities))
    factors = [_factor(best - quality, gap_max) for quality in qualities[1:]]
    gain = _log_odds(open_prior(len({model for model, _ in seats}), len(seats))) - _log_odds(MIXED[0])
    return 1 / (1 + math.exp(-_log_odds(best) - gain * sum(factors) / len(factors)))


def open_prior(models: int, answers: int) -> float:
    """What so many answers of so many models are worth on open questions, where one is worth MIXED[0].

    A further answer of one of several models adds SAMPLE of what another model would.
    """
    if models == 1:
        return _at(SELF, answers)
    return _at(MIXED, models) + SAMPLE * (_at(MIXED, answers) - _at(MIXED, models))


def majority(quality: float, votes: int) -> float:
    """The probability that the majority of so many votes is right (see above), where one is right with `quality`."""
    spread = min(SPREAD, quality, 1 - quality)
    return (_beta_half(quality + spread, votes) + _beta_half(quality - spread, votes)) / 2


def _beta_half(p: float, votes: int) -> float:
    """The regularized incomplete beta function at p with both parameters (votes + 1) / 2.

    From I(1/2) = 2/pi asin(sqrt p) and I(1) = p upwards by
    I(a+1, a+1) = I(a, a) + (p (1 - p))^a (2 p - 1) / (a B(a, a))   (DLMF 8.17.20 and 8.17.21).
    """
    a, found = (1.0, p) if votes % 2 else (0.5, 2 / math.pi * math.asin(math.sqrt(p)))
    while a < (votes + 1) / 2:
        beta = math.exp(2 * math.lgamma(a) - math.lgamma(2 * a))
        found += (p * (1 - p)) ** a * (2 * p - 1) / (a * beta)
        a += 1
    return min(1.0, max(0.0, found))


def _factor(below: float, gap_max: float) -> float:
    if below <= 0:
        return 1.0
    return max(0.0, 1 - below / gap_max) if gap_max > 0 else 0.0


def _at(curve: Sequence[float], size: int) -> float:
    return curve[min(size, len(curve)) - 1]


def _bounded(quality: float) -> float:
    return min(max(quality, QUALITY_MIN), QUALITY_MAX)


def _log_odds(quality: float) -> float:
    return math.log(quality / (1 - quality))
