"""Who asks, how often, and when: a day in phases, which may be played shorter.

    night     somebody who cannot sleep asks a council every few minutes
    morning   the first heavy user: a council after the other, with some seconds between them
    day       both heavy users, the second of whom wants councils of four; a light user chats now and then
    rush      both want more than there is: each keeps many councils open; the light user is still there
    evening   one heavy user, slower; the sleepless one comes back
    late      night again

A light user chats, which asks one model and is no council. Shorter days have shorter phases, not denser ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from benchmarks.sharing.job import Job
from benchmarks.sharing.workloads import chance

HOUR_MS = 3_600_000.0
Phases = Mapping[str, tuple[float, float]]
# From which part of the day to which.
PHASES: Phases = {
    "night": (0.0, 0.25),
    "morning": (0.25, 0.40),
    "day": (0.40, 0.65),
    "rush": (0.65, 0.70),
    "evening": (0.70, 0.85),
    "late": (0.85, 1.0),
}
# Nothing but rush: who gets how much is only told where nobody has anything to catch up with.
RUSH: Phases = {"rush": (0.0, 1.0)}
SECOND_MS = 1_000.0
LIGHT = "light"
LIGHT_MODELS = ("large", "first", "second", "small")
LIGHT_TOKENS = (256, 128)
# One in so many milliseconds, by phase.
LIGHT_EVERY_MS = {"morning": 120 * SECOND_MS, "day": 30 * SECOND_MS, "rush": 15 * SECOND_MS, "evening": 120 * SECOND_MS}
WEIGHTS = {"heavy": 100, "heavier": 200}


@dataclass(frozen=True, slots=True)
class Habit:
    """How somebody asks in a phase.

    Args:
        depth: councils open at a time.
        pause_ms: from the end of one to the next question, on average.
        size_wanted: None: `council`, as many as are worth it; else `council:N`.
    """

    user: str
    phase: str
    pause_ms: float
    depth: int = 1
    size_wanted: int | None = None


HABITS = (
    Habit("sleepless", "night", 180 * SECOND_MS),
    Habit("heavy", "morning", 5 * SECOND_MS),
    Habit("heavy", "day", 5 * SECOND_MS),
    Habit("heavier", "day", 10 * SECOND_MS, size_wanted=4),
    Habit("heavy", "rush", 0.0, depth=16),
    Habit("heavier", "rush", 0.0, depth=24, size_wanted=4),
    Habit("heavy", "evening", 60 * SECOND_MS),
    Habit("sleepless", "evening", 120 * SECOND_MS),
    Habit("sleepless", "late", 180 * SECOND_MS),
)


@dataclass(frozen=True, slots=True)
class Day:
    """One day of so many hours."""

    hours: float
    seed: int
    phases: Phases = field(default_factory=lambda: PHASES)

    @property
    def ends_ms(self) -> float:
        """Its end."""
        return self.hours * HOUR_MS

    def span_ms(self, phase: str) -> tuple[float, float]:
        """When a phase begins and ends."""
        begins, ends = self.phases[phase]
        return begins * self.ends_ms, ends * self.ends_ms

    def phase_at(self, at_ms: float) -> str:
        """The phase of a moment."""
        return next((phase for phase, (_, ends) in self.phases.items() if at_ms < ends * self.ends_ms), "")

    def light_jobs(self) -> Iterator[Job]:
        """The light user's requests, the same whoever else asks."""
        dice = chance((self.seed, LIGHT))
        for phase, every_ms in LIGHT_EVERY_MS.items():
            if phase not in self.phases:
                continue
            at_ms, ends_ms = self.span_ms(phase)
            number = 0
            while (at_ms := at_ms + dice.expovariate(1 / every_ms)) < ends_ms:
                prompt, answer = (spread(tokens, dice) for tokens in LIGHT_TOKENS)
                model = dice.choice(LIGHT_MODELS)
                yield Job(f"{LIGHT}-{phase}-{number}", LIGHT, at_ms, prompt, answer, engine=model)
                number += 1


def spread(tokens: int, dice: Random) -> int:
    """A length around this one."""
    return round(tokens * dice.uniform(0.5, 1.5))
