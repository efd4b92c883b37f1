"""Keeps the size of councils from flapping: down at once, up slowly.

    down   as soon as less is possible, to what is possible
    up     by one, after RISE_MS in which more was possible at every look, and not before COOL_MS after a step down

A load that comes and goes every few seconds would otherwise make every second council another one, and each growth
would bring the load back that ended the last (the same two speeds as in TCP's congestion control; Jacobson, "Congestion
avoidance and control", 1988).

What is counted is calm, not time: each look adds what has passed since the one before, LOOK_MS_MAX at the most, because
nobody knows what was possible while nobody looked. So a clock that jumps forwards adds one look's worth, and one that
jumps backwards adds nothing. Look every second or so.
"""

from msgspec import Struct

RISE_MS = 10_000
COOL_MS = 30_000
LOOK_MS_MAX = 10_000


class Steady(Struct, frozen=True, kw_only=True):
    """Where it stands.

    Attributes:
        ceiling: the largest council now; None before the first look.
        seen_ms: of the last look, on any clock.
        calm_ms: for how long more than the ceiling has been possible.
        cooling_ms: for how long it may not rise yet.
        is_rising: whether more than the ceiling was possible at the last look.
    """

    ceiling: int | None = None
    seen_ms: int = 0
    calm_ms: int = 0
    cooling_ms: int = 0
    is_rising: bool = False

    def step(self, now_ms: int, wanted_size: int) -> tuple["Steady", int]:
        """One look: the state after it, and the ceiling.

        Args:
            now_ms: of one clock, the same at every look.
            wanted_size: what is possible now (`allocate.room`), not what somebody asked for; below 1 counts as 1.
        """
        size = max(wanted_size, 1)
        if self.ceiling is None:
            return Steady(ceiling=size, seen_ms=now_ms), size
        passed_ms = min(max(now_ms - self.seen_ms, 0), LOOK_MS_MAX)
        cooling_ms = max(self.cooling_ms - passed_ms, 0)
        if size < self.ceiling:
            return Steady(ceiling=size, seen_ms=now_ms, cooling_ms=COOL_MS), size
        if size == self.ceiling:
            return Steady(ceiling=size, seen_ms=now_ms, cooling_ms=cooling_ms), size
        # Calm begins at the first look that sees more: before it nobody knows.
        calm_ms = self.calm_ms + passed_ms if self.is_rising else 0
        if calm_ms >= RISE_MS and cooling_ms == 0:
            ceiling = self.ceiling + 1
            risen = Steady(ceiling=ceiling, seen_ms=now_ms, is_rising=size > ceiling)
            return risen, ceiling
        return (
            Steady(ceiling=self.ceiling, seen_ms=now_ms, calm_ms=calm_ms, cooling_ms=cooling_ms, is_rising=True),
            self.ceiling,
        )
