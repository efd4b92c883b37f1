"""What a roster would take and be worth now: J = Q - P, with the speeds of its engines and the load as it is.

    T   the leader's first token; then all others begin; the slowest ends; the chair reads all answers and writes one
    E   time for which engines are kept busy: one prompt each, answers of one engine together, and the chair
    P   w_t ln(T / T_solo) + w_l rho (E / E_solo - 1), where the best model alone is the measure

J chooses among rosters of one size; the size itself is decided elsewhere (allocate.py says why).
"""

import math

from server.allocator.contention import batch_left
from server.allocator.limits import US_PER_MS, Limits, decode_us, prefill_us
from server.allocator.quality import VOTE_KINDS, quality_of
from server.allocator.rosters import Roster
from server.allocator.terms import Candidate, Demand, Policy, Predicted

TIME_MS_MIN = 1.0
MS_PER_S = 1_000


class Estimates:
    """Of rosters under one load.

    Args:
        solo: the candidate that alone is the measure.
        rho: the part of the box that is taken.
    """

    def __init__(self, demand: Demand, policy: Policy, limits: Limits, solo: Candidate, rho: float) -> None:
        self.demand, self.policy, self.limits, self.rho = demand, policy, limits, rho
        alone = Roster(((solo, 1),))
        self._alone_ms = self._total_ms(alone, self._rates(alone), solo, None)
        self._alone_work_ms = max(self._work_ms(alone, None), TIME_MS_MIN)

    def predict(self, roster: Roster, leader: Candidate, chair: Candidate | None) -> Predicted:
        """What comes of it."""
        rates = self._rates(roster)
        total_ms = self._total_ms(roster, rates, leader, chair)
        longer = total_ms / self._alone_ms
        work = self._work_ms(roster, chair) / self._alone_work_ms
        price = self.policy.time_price * math.log(longer) + self.policy.load_price * self.rho * (work - 1)
        gap_max = 1.0 if self.policy.members else self.policy.quality_gap_max
        return Predicted(
            first_token_ms=math.ceil(self.limits.first_token_ms(leader)),
            total_ms=math.ceil(total_ms),
            tokens_per_s=min(rates),
            quality=quality_of(self.demand.kind, roster.seats, gap_max=gap_max),
            price=price,
        )

    def _rates(self, roster: Roster) -> list[float]:
        """Of each place, in tokens a second."""
        busy = {box: len(self.limits.busy(box) | roster.engines(box)) for box in roster.boxes}
        return [self.limits.tokens_per_s(each, answers, busy[each.box]) for each, answers in roster.places]

    def _total_ms(self, roster: Roster, rates: list[float], leader: Candidate, chair: Candidate | None) -> float:
        first_ms = self.limits.first_token_ms(leader)
        slowest_ms = 0.0
        for (each, _), rate in zip(roster.places, rates, strict=True):
            starts_ms = 0.0 if each is leader else self.limits.first_token_ms(each)
            slowest_ms = max(slowest_ms, starts_ms + self.demand.answer_tokens * MS_PER_S / rate)
        return max(first_ms + slowest_ms + self._chair_ms(roster, chair), TIME_MS_MIN)

    def _work_ms(self, roster: Roster, chair: Candidate | None) -> float:
        work_us = 0.0
        for each, answers in roster.places:
            decode = decode_us(each) / batch_left(answers, each.together)
            work_us += self.demand.prompt_tokens * prefill_us(each) + self.demand.answer_tokens * decode
        return work_us / US_PER_MS + self._chair_ms(roster, chair)

    def _chair_ms(self, roster: Roster, chair: Candidate | None) -> float:
        if chair is None or self.demand.kind in VOTE_KINDS:
            return 0.0
        read = self.demand.prompt_tokens + roster.size * self.demand.answer_tokens
        return (read * prefill_us(chair) + self.demand.answer_tokens * decode_us(chair)) / US_PER_MS
