"""Who has to leave memory when a model needs room: pure, so that every rule can be tested without an engine.

A model in memory is in one of four positions towards another one that needs room:

- *free*: nobody uses it, and it has been idle for as long as loading it again would take, or its hold is over. It may
  go at once. Waiting for one reload's time before giving a place up costs at most twice of what somebody who knew the
  future would pay (the ski-rental argument: Karlin, Manasse, Rudolph and Sleator, "Competitive snoopy caching",
  Algorithmica 3, 1988). People who pause to read keep their model for a while; people who have left do not block.
- *ripe*: in use, but its hold is over. It may be asked to yield: nobody new enters, what runs ends, then it is free.
- *held*: loaded less than `hold_ms_min` ago and in demand. It stays; the one in need waits until the hold ends.
- *pinned*: used by somebody whom this server does not know, or it could not be unloaded just now. It is looked at
  again later.

Among the free, and then among the ripe, the least score goes first. The score is GreedyDual-Size (Cao and Irani,
"Cost-aware WWW proxy caching algorithms", USITS 1997; after Young's GreedyDual, 1994): `age + cost / size` at the last
use, where cost is the time to load it again and age the score of what was evicted last. It weighs recency, size and
cost in one number, and what nobody uses falls behind however dear it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.engines.places import Place

# How soon to look again at a model that others use.
PINNED_MS = 1_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How to make room.

    Attributes:
        evict: free models whose going is part of it.
        drain: ripe models that must yield first; empty if room can be made now.
        look_again_ms: when the next hold ends, which may allow a better plan; None if only somebody's leaving helps.
        is_possible: whether `evict` and `drain` together make enough room.
    """

    evict: tuple[Place, ...] = ()
    drain: tuple[Place, ...] = ()
    look_again_ms: int | None = None
    is_possible: bool = True

    @property
    def is_ready(self) -> bool:
        """Whether room can be made now."""
        return self.is_possible and not self.drain

    def next_look_ms(self, now_ms: int) -> int | None:
        """After how many milliseconds to look again; None if only a change can help."""
        if self.look_again_ms is not None:
            return max(1, self.look_again_ms - now_ms)
        # Room that strangers took comes back without a word to us.
        return None if self.is_possible else PINNED_MS


def make_room(needed_bytes: int, residents: Sequence[Place], *, budget_bytes: int, now_ms: int, hold_ms: int) -> Plan:
    """Choose who leaves so that `needed_bytes` fit into the budget beside those who stay.

    Args:
        residents: all who take room now; the one in need is not among them.
        hold_ms: `hold_ms_min`, which bounds how long an idle model may linger.
    """
    missing_bytes = needed_bytes + sum(place.size_bytes for place in residents) - budget_bytes
    if missing_bytes <= 0:
        return Plan()
    free: list[Place] = []
    ripe: list[Place] = []
    later_ms: list[int] = []
    for place in residents:
        opens_ms = _opens_ms(place, now_ms, hold_ms)
        if opens_ms > now_ms:
            later_ms.append(opens_ms)
        elif place.in_use:
            ripe.append(place)
        else:
            free.append(place)
    free.sort(key=_score)
    # Who yields already goes on yielding: its score stands still while those of others grow.
    ripe.sort(key=lambda place: (not place.is_yielding, place.score))
    chosen = _enough([*free, *ripe], missing_bytes)
    look_again_ms = min(later_ms, default=None)
    if chosen is None:
        return Plan(look_again_ms=look_again_ms, is_possible=False)
    return Plan(
        evict=tuple(place for place in chosen if not place.in_use),
        drain=tuple(place for place in chosen if place.in_use),
        look_again_ms=look_again_ms,
    )


def _opens_ms(place: Place, now_ms: int, hold_ms: int) -> int:
    """From when on it may be asked for its room."""
    if place.is_used_elsewhere or place.is_moving:
        return now_ms + PINNED_MS
    leaves_ms = place.held_until_ms
    if not place.in_use:
        leaves_ms = min(leaves_ms, place.used_at_ms + min(hold_ms, place.cost_ms))
    return max(leaves_ms, place.pinned_until_ms)


def _enough(candidates: Iterable[Place], missing_bytes: int) -> list[Place] | None:
    """The first candidates that make room, without those whom a later, larger one made needless."""
    chosen: list[Place] = []
    for place in candidates:
        chosen.append(place)
        missing_bytes -= place.size_bytes
        if missing_bytes <= 0:
            break
    else:
        return None
    for place in reversed(chosen[:-1]):
        if missing_bytes + place.size_bytes <= 0:
            missing_bytes += place.size_bytes
            chosen.remove(place)
    return chosen


def _score(place: Place) -> int:
    return place.score
