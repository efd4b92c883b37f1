"""What somebody has used."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select

from server.db.models import CouncilRun, Usage
from server.db.session import Database

ROWS_MAX = 100


class UsageReport:
    """Reads usage."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def latest(self, user_id: UUID) -> Sequence[tuple[Usage, str | None]]:
        """The newest requests of one person, at most ROWS_MAX; each with why its council was of its size."""
        query = (
            select(Usage, CouncilRun.reason)
            .outerjoin(CouncilRun, CouncilRun.id == Usage.council_id)
            .where(Usage.user_id == user_id)
            .order_by(Usage.started_at.desc())
            .limit(ROWS_MAX)
        )
        async with self._database.transaction(of=user_id) as session:
            return [(usage, reason) for usage, reason in await session.execute(query)]
