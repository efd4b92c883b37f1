"""Settles shares: writes into a request's row what share of the engines and of the energy it had.

Shares follow from what neighbours did and what devices told (migration 0011). Before rows of either go, whoever removes
them has the shares of all requests settled up to a day beyond what is removed. No request without settled shares needs
anything older: its span and its neighbours' reach six hours, a device's period one. So every report says the same
before and after.

One day is one transaction, and only rows without settled shares are written; killed in between, the next run goes on.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import text

from server.upkeep.jobs import Turn
from server.upkeep.parted import smallest_id

DAY = timedelta(days=1)
_DAYS = text(
    "SELECT DISTINCT (started_at AT TIME ZONE 'UTC')::date AS day FROM usage"
    " WHERE gpu_us IS NULL AND started_at < :until ORDER BY day"
)
# The function tells of everybody only to a transaction that says so.
_EVERYBODY = text("SELECT set_config('wirthforge.everybody', 'on', true)")
_SETTLE = text(
    "UPDATE usage SET gpu_us = shares.gpu_us, energy_mj = shares.energy_mj FROM usage_shares(:since, :until) AS shares"
    " WHERE usage.request_id = shares.request_id AND usage.gpu_us IS NULL"
    " AND usage.request_id >= :first AND usage.request_id < :last"
)
# Ids of clocks that were far off, which the function does not look for.
_SETTLE_REST = text("UPDATE usage SET gpu_us = 0 WHERE gpu_us IS NULL AND started_at >= :since AND started_at < :until")


def midnight(time: datetime) -> datetime:
    """The beginning of its day, in UTC."""
    return begins(time.astimezone(UTC).date())


def begins(day: date) -> datetime:
    """The first moment of a day, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


async def settle(turn: Turn, until: datetime) -> int:
    """Settle all requests that began before `until`, a midnight; returns how many days were looked at."""
    days = await _days(turn, until)
    if turn.is_dry:
        if days:
            turn.tell(f"would settle the shares of requests of {len(days)} days")
        return len(days)
    count = 0
    for day in days:
        since = begins(day)
        span = {"since": since, "until": since + DAY}
        # A day more on both sides, as the function looks for ids.
        ids = {"first": smallest_id(since - DAY), "last": smallest_id(since + 2 * DAY)}
        async with turn.connection.begin():
            await turn.connection.execute(_EVERYBODY)
            count += (await turn.connection.execute(_SETTLE, span | ids)).rowcount
            count += (await turn.connection.execute(_SETTLE_REST, span)).rowcount
    if days:
        turn.tell(f"settled the shares of {count} requests of {len(days)} days")
    return len(days)


async def _days(turn: Turn, until: datetime) -> Sequence[date]:
    async with turn.connection.begin():
        return (await turn.connection.scalars(_DAYS, {"until": until})).all()
