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
            outcome=row.outcome,
            started_at=row.started_at,
        )
        for row in await usage_report.latest(principal.id)
    ]
