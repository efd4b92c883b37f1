"""What was seen of contention: what streams keep of their rate when several engines of a box answer at once.

Kept is, for each box, hardware and number of busy engines, the sum of the logarithms of what was left (1: everything)
and how many there were; their quotient is the logarithm of the geometric mean. What follows from it, with a prior and
bounds, is the allocator's part (server/allocator/contention.py). Observations are collected in memory and added in
Postgres every few seconds, so that a token costs no query.
"""

from collections.abc import Callable, Mapping
from math import isfinite, log

import structlog
from msgspec import Struct
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from server.clock import Clock
from server.council.audit import audited
from server.db.models import ContentionRow
from server.db.session import Database
from server.errors import Unavailable
from server.messages import Principal

EVERY_MS = 3_000
SIZE_MAX = 64
# A stream that stood still, or was measured too fast, is not believed further than this.
LEFT_MIN, LEFT_MAX = 0.01, 2.0

logger = structlog.get_logger(__name__)


class Seen(Struct, frozen=True):
    """Observations of one number of busy engines."""

    log_sum: float = 0.0
    count: int = 0

    def __add__(self, other: "Seen") -> "Seen":
        """Both together."""
        return Seen(self.log_sum + other.log_sum, self.count + other.count)


class Observed(Struct, frozen=True, kw_only=True):
    """What was seen of `size` busy engines on a box, while it was this hardware."""

    box: str
    hardware: str
    size: int
    seen: Seen


class Contentions:
    """All observations.

    Args:
        hardware: what the box is now; empty while that is not known. Then observations wait.
    """

    def __init__(self, database: Database, clock: Clock, *, hardware: Callable[[], str]) -> None:
        self._database = database
        self._clock = clock
        self._hardware = hardware
        self._known: dict[tuple[str, str, int], Seen] = {}
        self._new: dict[tuple[str, int], Seen] = {}
        self._resets = 0

    def observe(self, box: str, size: int, left: float) -> None:
        """A stream kept `left` of its rate alone while `size` engines of the box answered. Costs an addition."""
        if isfinite(left) and left > 0 and 1 <= size <= SIZE_MAX:
            each = Seen(log(min(max(left, LEFT_MIN), LEFT_MAX)), 1)
            self._new[box, size] = self._new.get((box, size), Seen()) + each

    def of(self, box: str) -> Mapping[int, Seen]:
        """What was seen on this box, as it is now, by the number of busy engines; asks nobody."""
        hardware = self._hardware()
        found = {size: seen for (name, kind, size), seen in self._known.items() if (name, kind) == (box, hardware)}
        for (name, size), seen in self._new.items():
            if name == box:
                found[size] = found.get(size, Seen()) + seen
        return found

    async def all(self) -> list[Observed]:
        """From Postgres, by box, hardware and size. Raises Unavailable."""
        query = select(ContentionRow).order_by(ContentionRow.box, ContentionRow.hardware, ContentionRow.size)
        async with self._database.transaction() as session:
            return [
                Observed(box=row.box, hardware=row.hardware, size=row.size, seen=Seen(row.log_sum, row.count))
                for row in await session.scalars(query)
            ]

    async def reset(self, actor: Principal, *, box: str | None = None) -> int:
        """Forget what was seen, of one box where it is named; returns how many rows there were. Raises Unavailable."""
        if box is not None and "\0" in box:
            return 0
        chosen = [] if box is None else [ContentionRow.box == box]
        async with self._database.transaction() as session:
            gone = (await session.scalars(delete(ContentionRow).where(*chosen).returning(ContentionRow.size))).all()
            subject = "contention" if box is None else f"contention of {box}"
            entry = audited(actor, self._clock.now(), "contention.reset", subject, before={"rows": len(gone)})
            session.add(entry)
        self._resets += 1
        self._new = {key: seen for key, seen in self._new.items() if box is not None and key[0] != box}
        self._known = {key: seen for key, seen in self._known.items() if box is not None and key[0] != box}
        return len(gone)

    async def step(self) -> None:
        """Add what is new, and learn what other replicas have seen. Raises Unavailable; then nothing is lost."""
        hardware, resets = self._hardware(), self._resets
        if hardware and self._new:
            adding, self._new = self._new, {}
            try:
                await self._add(hardware, adding)
            except BaseException:
                if resets == self._resets:
                    self._new = {
                        key: adding.get(key, Seen()) + self._new.get(key, Seen()) for key in {**adding, **self._new}
                    }
                raise
        found = await self.all()
        if resets == self._resets:
            self._known = {(each.box, each.hardware, each.size): each.seen for each in found}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.step()
            except Unavailable as error:
                logger.warning("contention waits", reason=error.message)
            await self._clock.sleep_ms(EVERY_MS)

    async def _add(self, hardware: str, new: Mapping[tuple[str, int], Seen]) -> None:
        now = self._clock.now()
        # In one order for all replicas, or two would wait for each other.
        rows = [
            {"box": box, "hardware": hardware, "size": size, "log_sum": seen.log_sum, "count": seen.count}
            for (box, size), seen in sorted(new.items())
        ]
        query = insert(ContentionRow).values([{**row, "updated_at": now} for row in rows])
        added = {
            "log_sum": ContentionRow.log_sum + query.excluded.log_sum,
            "count": ContentionRow.count + query.excluded.count,
            "updated_at": query.excluded.updated_at,
        }
        async with self._database.transaction() as session:
            await session.execute(query.on_conflict_do_update(index_elements=("box", "hardware", "size"), set_=added))
