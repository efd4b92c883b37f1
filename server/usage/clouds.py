"""The usage row of a request that somebody else's model answered.

It does not come from Redis, where it never ran, but with the last entry of the egress ledger, in one transaction
(server/cloud/sending.py). Budgets of tokens are about this box and do not count it, so neither do the sums that are
compared with them (invariants.py). It is written once: a second row with its id is left out, as is one of a request
that this box has answered after all.
"""

from datetime import datetime
from uuid import UUID

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from server.db.models import Usage

PLACEMENT = "cloud"


class CloudUsage(Struct, frozen=True, kw_only=True):
    """What was used.

    Attributes:
        model: the provider's.
        engine: the provider's name.
        queue_ms: how long it waited on this box before.
        cost_micros: millionths of the admin's currency.
    """

    request_id: UUID
    user_id: UUID
    key_id: UUID | None
    surface: str
    model: str
    engine: str
    input_tokens: int
    output_tokens: int
    queue_ms: int
    first_token_ms: int | None
    total_ms: int
    council_id: UUID | None
    role: str | None
    outcome: str
    started_at: datetime
    cost_micros: int


async def write(session: AsyncSession | AsyncConnection, used: CloudUsage) -> None:
    """Write the row, in a transaction of its person or of everybody.

    One that says `abandoned` gives way: the ledger in Redis may have given up a request that had left its queue.
    """
    row = {**asdict(used), "placement": PLACEMENT}
    new = insert(Usage).values(**row)
    measured = {name: new.excluded[name] for name in row if name not in {"request_id", "user_id"}}
    await session.execute(
        new.on_conflict_do_update(index_elements=[Usage.request_id], set_=measured, where=Usage.outcome == "abandoned")
    )
