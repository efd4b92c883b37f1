"""What is expected of people, from what they have used: past weeks out of Postgres, the last minutes as they happen.

The weeks are one aggregate over the usage table, faded there, so that what travels is bounded. Ids of requests begin
with their time, so the primary key bounds what is read. It is read every few minutes, and seldom enough that it takes a
hundredth of the time at the most, however large the table grows. Hours are those of UTC: a week has the same pattern in
every time zone. Of a council only the leader's request is counted: who else answers follows what is in memory, and
would make likelier what is there already.

Where Postgres is away, what was read last goes on being true for a while.
"""

from collections.abc import Mapping
from uuid import UUID

import structlog
from sqlalchemy import BigInteger, Float, Uuid, bindparam, text
from sqlalchemy.exc import SQLAlchemyError

from server.allocator.forecast import (
    CELLS_MAX,
    EPOCH_H,
    HALF_LIFE_MS,
    HISTORY_MS_MAX,
    WEEK_H,
    Cell,
    Expected,
    Forecast,
    History,
    Lately,
)
from server.clock import Clock
from server.db.session import Database
from server.errors import Unavailable

READ_EVERY_MS = 300_000
# Of the time, at the most: after a reading as many times as long as it took is waited.
REST_FACTOR = 100
# How old an answer may be. Allocating asks often.
FRESH_MS = 1_000
REQUESTS_WITHIN_MS = 300_000
MODELS_WITHIN_MS = 900_000

log = structlog.get_logger(__name__)


class Expectations:
    """One per replica: what the next minutes will bring. Of the last minutes it knows what this replica saw."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        now_ms = self._now_ms()
        self._forecast = Forecast(History(since_ms=now_ms, at_ms=now_ms))
        self._lately = Lately(since_ms=now_ms)
        # By how far ahead: when it was made, and what it says.
        self._fresh: dict[int, tuple[int, Expected]] = {}

    def saw(self, user: str, model: str) -> None:
        """A request begins."""
        self._lately.saw(user, model, self._now_ms())

    def requests_of_others(self, user_id: UUID | str, within_ms: int = REQUESTS_WITHIN_MS) -> float:
        """How many requests are expected of everybody else within so long."""
        return self._expected(within_ms).of_others(str(user_id))

    def models(self, within_ms: int = MODELS_WITHIN_MS) -> Mapping[str, float]:
        """How likely each model that was ever asked is asked within so long, 0 to 1."""
        return self._expected(within_ms).chances()

    def _expected(self, within_ms: int) -> Expected:
        now_ms, monotonic_ms = self._now_ms(), self._clock.monotonic_ms()
        made_ms, expected = self._fresh.get(within_ms, (0, None))
        if expected is None or monotonic_ms - made_ms >= FRESH_MS:
            expected = self._forecast.expect(self._lately, now_ms, within_ms)
            if len(self._fresh) > 1:
                self._fresh.clear()
            self._fresh[within_ms] = monotonic_ms, expected
        return expected

    async def run(self) -> None:
        """Read now and then, until cancelled."""
        while True:
            began_ms = self._clock.monotonic_ms()
            try:
                await self.read()
            except (Unavailable, SQLAlchemyError) as error:
                log.warning("past usage cannot be read", error=type(error).__name__)
            took_ms = self._clock.monotonic_ms() - began_ms
            await self._clock.sleep_ms(max(READ_EVERY_MS, REST_FACTOR * took_ms))

    async def read(self) -> None:
        """Read the past weeks anew.

        Raises:
            Unavailable: Postgres is away.
        """
        history = await history_of(self._database, self._now_ms())
        self._forecast = Forecast(history)
        self._fresh.clear()

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


async def history_of(database: Database, now_ms: int) -> History:
    """What past weeks say.

    Raises:
        Unavailable: Postgres is away.
    """
    since_ms = max(0, now_ms - HISTORY_MS_MAX)
    values = {
        "since_id": UUID(int=since_ms << 80),
        "since_s": since_ms / 1000,
        "now_s": now_ms / 1000,
        "half_life_s": HALF_LIFE_MS / 1000,
        "epoch_h": EPOCH_H,
        "week_h": WEEK_H,
        "cells_max": CELLS_MAX,
    }
    async with database.transaction(everybody=True) as session:
        rows = (await session.execute(_CELLS, values)).all()
    return History(
        # Before the first request there was nobody to watch.
        since_ms=int(1000 * rows[0].first_s) if rows else now_ms,
        at_ms=now_ms,
        cells=tuple(Cell(str(row.user_id), row.model, row.hour, row.requests) for row in rows),
    )


# Epochs are UTC's. Each row also tells when the first request of all was.
_CELLS = text("""
    WITH asked AS (
        SELECT user_id, model, extract(epoch FROM started_at)::float8 AS at_s
        FROM usage
        WHERE request_id >= :since_id AND started_at >= to_timestamp(:since_s) AND (role IS NULL OR role = 'leader')
    )
    SELECT user_id, model, (floor(at_s / 3600)::int8 + :epoch_h) % :week_h AS hour,
           sum(power(0.5, greatest(0, :now_s - at_s) / :half_life_s))::float8 AS requests,
           min(min(at_s)) OVER () AS first_s
    FROM asked GROUP BY user_id, model, hour ORDER BY requests DESC LIMIT :cells_max
""").bindparams(
    bindparam("since_id", type_=Uuid()),
    *(bindparam(name, type_=Float()) for name in ("since_s", "now_s", "half_life_s")),
    *(bindparam(name, type_=BigInteger()) for name in ("epoch_h", "week_h", "cells_max")),
)
