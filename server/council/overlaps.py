"""What a council teaches about contention: how fast its members wrote while others of the same box wrote beside them.

    A   ├──────────────────────┤     beside B: two engines
    B       ├────────────────┤       beside A: two engines
    C                       ├──────┤ mostly alone, partly beside A: nothing is learned

Of each call the time from its first token to its end counts, if it was long enough and nearly all of it was spent
beside the same number of other engines. Two calls on one engine share its steps, which is another matter: then too
nothing is learned. Requests of other people are seen as far as the box was busy when the council began.
"""

from collections.abc import Mapping

from msgspec import Struct

from server.council.events import OVER, Event, Member, Role

TOKENS_MIN = 32
# Overlaps of at least this part count as beside, of at most the rest as not.
BESIDE_MIN = 0.8


class Spoken(Struct):
    """One call: when it wrote, and how much."""

    model: str
    began_ms: int
    ended_ms: int | None = None
    tokens: int = 0


class Where(Struct, frozen=True):
    """Of a model: its engine, the box that this shares with others, and what a token takes it alone; 0: not known."""

    engine: str
    box: str
    decode_us: float


class Overlaps:
    """The calls of one council, in time."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, Role], Spoken] = {}

    def see(self, event: Event, now_ms: int) -> None:
        """Note when a call begins to answer, and when it ends."""
        if not isinstance(event, Member):
            return
        call = (event.label, event.role)
        if event.state == "answering":
            self._calls.setdefault(call, Spoken(event.model, now_ms))
        elif event.state in OVER and (spoken := self._calls.get(call)) is not None and spoken.ended_ms is None:
            spoken.ended_ms = now_ms
            spoken.tokens = event.usage.completion_tokens if event.usage is not None else 0

    def observations(
        self, places: Mapping[str, Where], busy: Mapping[str, frozenset[str]]
    ) -> list[tuple[str, int, float]]:
        """What was seen: the box, how many of its engines wrote, and what was left of one's own rate.

        Args:
            places: by model.
            busy: engines of a box that answered somebody else when the council began.
        """
        calls = [call for call in self._calls.values() if call.ended_ms is not None and call.model in places]
        found = []
        for call in calls:
            where = places[call.model]
            took_ms = (call.ended_ms or 0) - call.began_ms
            if (
                call.tokens < TOKENS_MIN
                or took_ms <= 0
                or where.decode_us <= 0
                or where.engine in busy.get(where.box, ())
            ):
                continue
            beside = self._beside(call, where, calls, places)
            if beside is None:
                continue
            engines = {where.engine} | beside | busy.get(where.box, frozenset())
            # The first token came before the time that is counted.
            left = where.decode_us * (call.tokens - 1) / (took_ms * 1000)
            found.append((where.box, len(engines), left))
        return found

    def _beside(
        self, call: Spoken, where: Where, calls: list[Spoken], places: Mapping[str, Where]
    ) -> frozenset[str] | None:
        """The other engines of the box that wrote nearly all the time; None where that cannot be told."""
        whole_ms = (call.ended_ms or 0) - call.began_ms
        shares: dict[str, float] = {}
        for other in calls:
            there = places[other.model]
            if other is call or there.box != where.box:
                continue
            both_ms = min(call.ended_ms or 0, other.ended_ms or 0) - max(call.began_ms, other.began_ms)
            shares[there.engine] = shares.get(there.engine, 0.0) + max(both_ms, 0) / whole_ms
        if any(1 - BESIDE_MIN < share < BESIDE_MIN for share in shares.values()) or shares.get(where.engine, 0) > 0:
            return None
        return frozenset(engine for engine, share in shares.items() if share >= BESIDE_MIN)
