"""What one person's requests to clouds may cost in a month: reserved before one leaves, settled at its end.

The month is that of the send, by UTC, also where the answer ends in the next one. What is reserved and spent together
never exceeds the limit at the moment of reserving: the row of a person and month is changed by one statement, which
waits for whoever changes it before. An answer that turns out dearer than what was reserved for it is spent all the
same, since it has been.

Amounts are millionths of the admin's currency. A limit of None is no limit, and with 0 nothing leaves, not even what
would cost nothing.
"""

from datetime import UTC, date, datetime
from uuid import UUID

from msgspec import Struct
from sqlalchemy import text

from server.errors import TooMany
from server.privacy.egress import Connected

MICROS_PER_CENT = 10_000


class Spent(Struct, frozen=True):
    """What a person's month holds."""

    reserved_micros: int
    spent_micros: int


def month_of(at: datetime) -> date:
    """The first day of the month in which something was sent, by UTC."""
    return at.astimezone(UTC).date().replace(day=1)


async def reserve(session: Connected, user_id: UUID, month: date, micros: int, limit_micros: int | None) -> None:
    """Set aside what a request may cost at the most.

    Args:
        session: of the person, or of everybody. Before `append_send`, since that is the order of locks.
        month: `month_of` the time of the send.

    Raises:
        TooMany: the month's limit does not allow it (`cloud_budget_spent`).
    """
    values = {"user_id": user_id, "month": month, "micros": micros, "limit": limit_micros}
    if limit_micros != 0:
        await session.execute(_MAKE, {"user_id": user_id, "month": month})
        if (await session.execute(_RESERVE, values)).first() is not None:
            return
    raise TooMany(
        "What your requests to clouds may cost this month is spent, or reserved by requests that still run.",
        code="cloud_budget_spent",
    )


async def hold(session: Connected, user_id: UUID, month: date) -> None:
    """Keep others from changing this month until the transaction ends. Of somebody who was removed there is none."""
    await session.execute(_HOLD, {"user_id": user_id, "month": month})


async def settle(session: Connected, user_id: UUID, month: date, reserved_micros: int, spent_micros: int) -> None:
    """Put what was spent in the place of what was reserved for it; once per request (server/privacy/ends.py)."""
    values = {"user_id": user_id, "month": month, "reserved": reserved_micros, "spent": spent_micros}
    await session.execute(_SETTLE, values)


async def spent(session: Connected, user_id: UUID, month: date) -> Spent:
    """What the month holds so far."""
    row = (await session.execute(_READ, {"user_id": user_id, "month": month})).first()
    return Spent(0, 0) if row is None else Spent(row.reserved_micros, row.spent_micros)


_WHERE = "WHERE user_id = :user_id AND month = :month"
_MAKE = text(
    "INSERT INTO cloud_spend (user_id, month, reserved_micros, spent_micros) VALUES (:user_id, :month, 0, 0)"
    " ON CONFLICT (user_id, month) DO NOTHING"
)
_RESERVE = text(
    f"UPDATE cloud_spend SET reserved_micros = reserved_micros + :micros {_WHERE}"  # noqa: S608 (words of ours)
    " AND (CAST(:limit AS bigint) IS NULL OR reserved_micros + spent_micros + :micros <= CAST(:limit AS bigint))"
    " RETURNING 1"
)
_HOLD = text(f"SELECT 1 FROM cloud_spend {_WHERE} FOR UPDATE")  # noqa: S608
_SETTLE = text(
    "UPDATE cloud_spend SET reserved_micros = reserved_micros - :reserved,"  # noqa: S608
    f" spent_micros = spent_micros + :spent {_WHERE}"
)
_READ = text(f"SELECT reserved_micros, spent_micros FROM cloud_spend {_WHERE}")  # noqa: S608
