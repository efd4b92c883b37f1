"""Who must not be hurt by a council: the limits that a roster keeps or breaks under the load of now.

Two properties make sizes monotone (allocate.py), and every limit here has both. *Worse load breaks no less*: what keeps
a limit under some load keeps it under any better one. *Fewer members break no more*: with a member less a roster keeps
what it kept. Hence some conservative choices:

- Engines of a box count together, those that answer anybody now and those of the roster. A roster on an engine that is
  busy anyway is not let in for that reason.
- Beside i busy engines r more leave the streams that run left(i + r) / left(i) of their rate. By that a council hurts
  less where the box is fuller; so the worst of all smaller crowds counts.
- The leader keeps the limits like any other member. Where even a leader breaks one, there is no council and it answers
  alone: a single answer is never refused here.
- What is not known of memory counts as no memory, for what is not loaded yet.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from server.allocator.contention import Contention, batch_left
from server.allocator.rosters import Roster
from server.allocator.terms import Binding, Candidate, Demand, Load, Policy

# Of a 7-8B model on one GPU, where nobody has calibrated yet.
PREFILL_US_NOMINAL = 400.0
DECODE_US_NOMINAL = 10_000.0
US_PER_MS, US_PER_S = 1_000, 1_000_000

Contentions = Contention | Mapping[str, Contention]


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that is broken.

    Attributes:
        figure: what it would come to, and `bound` what is allowed, in the unit of the limit.
        where: the model, engine or box that it happens to.
    """

    binding: Binding
    rule: str
    figure: float
    bound: float
    where: str = ""

    @property
    def severity(self) -> float:
        """How far it is from being kept, from 1 on."""
        low, high = sorted((abs(self.figure) + 1, abs(self.bound) + 1))
        return high / low


class Limits:
    """The limits under this load.

    Args:
        contention: of every box, or by box; a box that is not listed has the default prior.
    """

    def __init__(self, demand: Demand, load: Load, policy: Policy, contention: Contentions) -> None:
        self._demand, self._load, self._policy = demand, load, policy
        self.free_slots: dict[str, int] = {}
        self.running: dict[str, int] = {}
        taken: dict[str, tuple[int, int, int]] = {}
        boxes = {each.box for each in load.candidates}
        for each in load.candidates:
            slots, running, waiting = taken.get(each.engine, (each.slots, 0, 0))
            taken[each.engine] = (min(slots, each.slots), max(running, each.running), max(waiting, each.waiting))
        for engine, (slots, running, waiting) in taken.items():
            self.free_slots[engine] = slots - running - waiting
            self.running[engine] = running
        self.slots = sum(max(slots, 0) for slots, _, _ in taken.values())
        self.begun = sum(running for _, running, _ in taken.values())
        self.waiting = sum(waiting for _, _, waiting in taken.values())
        unused = sum(max(0, slots - running) for slots, running, _ in taken.values())
        self.spoken_for = load.waiting_others + int(load.expected_requests)
        self.unused = unused
        self._first_ms: dict[tuple[str, str], float] = {}
        self._batches: dict[tuple[str, str, int], float] = {}
        self._known = {box: contention if isinstance(contention, Contention) else contention.get(box) for box in boxes}
        self._curves = {box: (known or Contention()).curve() for box, known in self._known.items()}
        self._best = {box: (known or Contention()).best_size() for box, known in self._known.items()}

    def busy(self, box: str) -> frozenset[str]:
        """Engines of this box that answer now."""
        return self._load.busy_engines.get(box, frozenset())

    def left(self, box: str, engines: int) -> float:
        """What each of so many busy engines of this box keeps of its rate."""
        curve = self._curves[box]
        if engines <= len(curve):
            return curve[max(engines, 1) - 1]
        return (self._known[box] or Contention()).left(engines)

    def tokens_per_s(self, candidate: Candidate, answers: int, engines: int) -> float:
        """What each of so many more answers of it would get, with so many busy engines in its box."""
        batch = self._batch(candidate, self.running[candidate.engine] + answers)
        return US_PER_S / decode_us(candidate) * self.left(candidate.box, engines) * batch

    def _batch(self, candidate: Candidate, answers: int) -> float:
        known = self._batches.get((candidate.engine, candidate.model, answers))
        if known is None:
            known = batch_left(answers, candidate.together)
            self._batches[candidate.engine, candidate.model, answers] = known
        return known

    def first_token_ms(self, candidate: Candidate) -> float:
        """From now to its first token, if it led: wait, load, prompt, and one step."""
        known = self._first_ms.get((candidate.engine, candidate.model))
        if known is not None:
            return known
        engines = len(self.busy(candidate.box) | {candidate.engine})
        work_us = self._demand.prompt_tokens * prefill_us(candidate) + decode_us(candidate)
        load_ms = 0 if candidate.is_resident else candidate.load_ms
        first_ms = candidate.wait_ms + load_ms + work_us / self.left(candidate.box, engines) / US_PER_MS
        self._first_ms[candidate.engine, candidate.model] = first_ms
        return first_ms

    def leaders(self, roster: Roster) -> list[Candidate]:
        """Those of the roster whose first token would come in time."""
        return [each for each, _ in roster.places if self.first_token_ms(each) <= self._policy.first_token_ms_max]

    def allow(self, roster: Roster) -> bool:
        """Whether it keeps all limits: hurts nobody."""
        return next(self._broken(roster), None) is None

    def breaches(self, roster: Roster) -> list[Breach]:
        """The limits that it breaks."""
        return list(self._broken(roster))

    def _broken(self, roster: Roster) -> Iterator[Breach]:
        yield from self._slots(roster)
        yield from self._memory(roster)
        yield from self._speed(roster)
        if not self.leaders(roster):
            soonest = min((each for each, _ in roster.places), key=self.first_token_ms)
            bound = self._policy.first_token_ms_max
            yield Breach("first_token", "first_token", self.first_token_ms(soonest), bound, soonest.model)

    def _slots(self, roster: Roster) -> Iterator[Breach]:
        needed: dict[str, int] = {}
        for each, answers in roster.places:
            needed[each.engine] = needed.get(each.engine, 0) + answers
            if each.wait_ms > self._policy.first_token_ms_max:
                yield Breach("waiting", "wait", each.wait_ms, self._policy.first_token_ms_max, each.model)
        for engine, answers in needed.items():
            if answers > self.free_slots[engine]:
                yield Breach("waiting", "slots", answers, max(0, self.free_slots[engine]), engine)
        # Where nobody else is about, too few slots in all are too few of some engine.
        if self.spoken_for and roster.size > self.unused - self.spoken_for:
            yield Breach("waiting", "others", self.spoken_for, self.unused)

    def _memory(self, roster: Roster) -> Iterator[Breach]:
        needed: dict[str, int] = {}
        for each, _ in roster.places:
            if not each.is_resident:
                needed[each.box] = needed.get(each.box, 0) + each.memory_bytes
        for box, size_bytes in needed.items():
            free_bytes = self._load.free_bytes.get(box)
            if free_bytes is None:
                yield Breach("memory", "memory_unknown", size_bytes, 0, box)
            elif size_bytes + self._policy.reserve_bytes > free_bytes:
                room_bytes = max(0, free_bytes - self._policy.reserve_bytes)
                yield Breach("memory", "memory", size_bytes, room_bytes, box)

    def _speed(self, roster: Roster) -> Iterator[Breach]:
        least = self._policy.tokens_per_s_min
        slowest = self._load.slowest_tokens_per_s
        for box in sorted(roster.boxes):
            engines = roster.engines(box)
            together = len(self.busy(box) | engines)
            if together > self._best[box]:
                yield Breach("speed", "too_many", together, self._best[box], box)
            if slowest is not None and (then := slowest * self._kept(box, engines)) < least:
                yield Breach("speed", "streams", then, least, box)
            for each, answers in roster.places:
                if each.box == box and (rate := self.tokens_per_s(each, answers, together)) < least:
                    yield Breach("speed", "member", rate, least, each.model)

    def _kept(self, box: str, engines: frozenset[str]) -> float:
        """What streams that run keep of their rate when these engines answer too; the worst of all smaller crowds."""
        busy, more = self.busy(box), len(engines)
        beside = len(busy - engines)
        kept = [self.left(box, crowd + more) / self.left(box, crowd) for crowd in range(1, beside + 1)]
        if busy & engines:
            kept.append(self.left(box, more))
        return min(kept, default=1.0)


def prefill_us(candidate: Candidate) -> float:
    """Time of a prompt token, alone."""
    return candidate.prefill_us if candidate.prefill_us > 0 else PREFILL_US_NOMINAL


def decode_us(candidate: Candidate) -> float:
    """Time of an answer token, alone."""
    return candidate.decode_us if candidate.decode_us > 0 else DECODE_US_NOMINAL
