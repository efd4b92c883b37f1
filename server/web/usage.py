"""One's own usage."""

from datetime import datetime
from uuid import UUID

from litestar import get
from litestar.di import NamedDependency
from msgspec import Struct

from server.messages import Principal
from server.usage.report import UsageReport


class UsageRow(Struct):
    """One request that was served; milliseconds count from its arrival.

    Attributes:
        pauses, paused_ms: how often the answer was interrupted for somebody else, and for how long in all.
        council_id: the council that it was a part of, if it was; `role` is what it did there: leader, member, rank,
            judge, debate or chair.
        council_reason: why the council was of its size; null until it has ended.
    """

    request_id: UUID
    model: str
    engine: str
    input_tokens: int
    output_tokens: int
    queue_ms: int
    first_token_ms: int | None
    total_ms: int
    pauses: int
    paused_ms: int
    council_id: UUID | None
    role: str | None
    council_reason: str | None
    outcome: str
    started_at: datetime


@get("/api/usage", tags=["Usage"])
async def own_usage(
    principal: NamedDependency[Principal], usage_report: NamedDependency[UsageReport]
) -> list[UsageRow]:
    """The newest requests, at most a hundred."""
    return [
        UsageRow(
            request_id=row.request_id,
            model=row.model,
            engine=row.engine,
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            queue_ms=row.queue_ms,
            first_token_ms=row.first_token_ms,
            total_ms=row.total_ms,
            pauses=row.pauses,
            paused_ms=row.paused_ms,
            council_id=row.council_id,
            role=row.role,
            council_reason=reason,
            outcome=row.outcome,
            started_at=row.started_at,
        )
        for row, reason in await usage_report.latest(principal.id)
    ]
