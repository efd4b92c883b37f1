"""What councils store and learn, joined: one of each, for every replica."""

from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any

from server.clock import Clock
from server.council.contention import Contentions
from server.council.named import NamedCouncils
from server.council.runs import Runs
from server.council.skills import Skills
from server.db.session import Database


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of councils."""

    named: NamedCouncils
    runs: Runs
    skills: Skills
    contentions: Contentions

    @property
    def parts(self) -> dict[str, object]:
        """By the names that handlers ask for."""
        return {
            "named_councils": self.named,
            "council_runs": self.runs,
            "skills": self.skills,
            "contentions": self.contentions,
        }

    @property
    def loops(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """What runs as long as the server does."""
        return self.named.run, self.runs.run, self.skills.run, self.contentions.run


def stores_of(
    database: Database,
    clock: Clock,
    *,
    strategies: Callable[[], Collection[str]],
    hardware: Callable[[], str],
) -> Stores:
    """All stores of one replica.

    Args:
        strategies: the names of those that there are.
        hardware: what the box is now; empty while that is not known.
    """
    runs = Runs(database, clock)
    return Stores(
        named=NamedCouncils(database, clock, strategies=strategies),
        runs=runs,
        skills=Skills(database, clock, runs),
        contentions=Contentions(database, clock, hardware=hardware),
    )
