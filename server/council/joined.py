"""Everything that councils need, joined: for the composition root (server/app.py)."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from server.accounts.quotas import Quotas
from server.chat.pipeline import Way
from server.clock import Clock
from server.council.planning import Planner
from server.council.scene import Scene
from server.council.service import Councils
from server.council.stores import stores_of
from server.council.strategies import load_strategies
from server.db.session import Database
from server.settings import Settings


@dataclass(frozen=True, slots=True)
class Joined:
    """What handlers ask for by name, who watches how large councils may be, and what runs as the server does."""

    parts: dict[str, object]
    all: Councils
    planner: Planner
    loops: tuple[Callable[[], Coroutine[Any, Any, None]], ...]


def councils_of(
    way: Way,
    scene: Callable[..., Scene],
    *,
    quotas: Quotas,
    database: Database,
    clock: Clock,
    hardware: Callable[[], str],
    settings: Settings,
) -> Joined:
    """The councils of one replica.

    Args:
        way: how each member is asked, and whoever asks no council.
        scene: makes what the allocator looks at, given the skills.
        hardware: what the box is now; empty while that is not known.
    """
    strategies = load_strategies()
    stores = stores_of(database, clock, strategies=lambda: strategies, hardware=hardware)
    planner = Planner(
        scene(skills=stores.skills),
        named=stores.named,
        contentions=stores.contentions,
        clock=clock,
        prior=settings.council_prior,
        is_shadow=settings.council_shadow,
    )
    councils = Councils(way, quotas=quotas, planner=planner, stores=stores, strategies=strategies, clock=clock)
    parts = {**stores.parts, "councils": councils}
    return Joined(parts, councils, planner, (*stores.loops, planner.watch))
