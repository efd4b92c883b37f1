"""Strategies: who of a council is asked what, and when it is enough.

A strategy is an async function of the table (table.py). It asks members, and ends with `conclude`, or with `chair_says`
and `tell`. What goes wrong with a member is the table's to survive; what a strategy cannot do with these answers, such
as a vote on an essay, it leaves to the chair and says so.

More come as plugins: an installed package names one in the entry point group `wirthforge.strategies`. One that cannot
be loaded is named in the log and left out. A plugin that breaks while a council sits costs it no answer (Table.run).
"""

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points

import structlog
from msgspec import Struct

from server.allocator.quality import VOTE_KINDS
from server.council.strategies.council_k import council_k
from server.council.strategies.debate import debate
from server.council.strategies.duo import duo
from server.council.strategies.judge import judge
from server.council.strategies.karpathy import karpathy
from server.council.strategies.race import race
from server.council.strategies.self_k import self_k
from server.council.strategies.solo import solo
from server.council.strategies.vote import vote
from server.council.table import Strategy

GROUP = "wirthforge.strategies"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")

PAIR = 2

log = structlog.get_logger(__name__)

BUILT_IN: Mapping[str, Strategy] = {
    "solo": solo,
    "self-k": self_k,
    "duo": duo,
    "council-k": council_k,
    "vote": vote,
    "judge": judge,
    "race": race,
    "karpathy": karpathy,
    "debate": debate,
}


def suited(kind: str, size: int, *, samples_only: bool = False) -> str:
    """The strategy for a question where nobody chose one.

    Args:
        kind: of question, by the allocator's words.
        size: members that there is room for.
    """
    if size <= 1:
        return "solo"
    if samples_only:
        return "self-k"
    if kind in VOTE_KINDS:
        return "vote"
    return "duo" if size == PAIR else "council-k"


class LeftOut(Struct, frozen=True):
    """A plugin that is not used, and why."""

    name: str
    reason: str


class Strategies(dict[str, Strategy]):
    """Strategies by name; `left_out` are the plugins that are not among them."""

    def __init__(self) -> None:
        super().__init__(BUILT_IN)
        self.left_out: list[LeftOut] = []


def load_strategies(found: Iterable[EntryPoint] | None = None) -> Strategies:
    """The built-in strategies and those of plugins; a plugin may not take a name that is taken."""
    strategies = Strategies()
    for point in entry_points(group=GROUP) if found is None else found:
        try:
            strategy = point.load()
            if point.name in strategies or not callable(strategy):
                raise TypeError("its name is taken, or it is no function")  # noqa: TRY301
            if NAME.fullmatch(point.name) is None:
                raise ValueError("its name has other characters than a-z, 0-9 and -")  # noqa: TRY301
            strategies[point.name] = strategy
        except Exception as error:  # noqa: BLE001 (a plugin may do anything)
            reason = f"{type(error).__name__}: {error}"[:500]
            strategies.left_out.append(LeftOut(point.name, reason))
            log.error("strategy plugin left out", plugin=point.name, reason=reason)
    return strategies
