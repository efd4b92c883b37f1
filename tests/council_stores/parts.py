"""What these tests share: councils as they are stored."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select

from server.council.runs import Run, RunMember
from server.db.models import CouncilRun, SkillRow
from server.db.session import Database
from server.messages import Principal

BEGAN = datetime(2026, 11, 23, 12, tzinfo=UTC)


def someone(name: str = "ann") -> Principal:
    """A person."""
    return Principal(id=uuid4(), name=name, role="admin")


def member(label: str, model: str, role: Any = "member", state: Any = "done") -> RunMember:
    """Somebody who took part."""
    return RunMember(
        label=label,
        model=model,
        engine="e",
        role=role,
        state=state,
        reason=None if state == "done" else "It was stopped for somebody who waited.",
        prompt_tokens=7,
        completion_tokens=3,
        first_token_ms=12,
        total_ms=34,
    )


THREE = (member("A", "small", "leader"), member("B", "large"), member("C", "other"))


def run(user_id: UUID, members: tuple[RunMember, ...] = THREE, **fields: Any) -> Run:
    """A council of three, in which the leader won."""
    return Run(
        **{
            "id": uuid4(),
            "user_id": user_id,
            "name": "council:3",
            "strategy": "council-k",
            "kind": "open",
            "wanted": 3,
            "size": len(members),
            "reason": "3 of 3: nothing is in the way.",
            "binding": "wanted",
            "members": members,
            "verdict_method": "agreement",
            "agreement": 1.0,
            "winner": "A",
            "started_at": BEGAN,
            "total_ms": 1_234,
            **fields,
        }
    )


def later(seconds: int) -> datetime:
    """So many seconds after the beginning."""
    return BEGAN + timedelta(seconds=seconds)


async def rows(database: Database) -> dict[UUID, CouncilRun]:
    """What is stored of councils."""
    async with database.transaction(everybody=True) as session:
        return {row.id: row for row in await session.scalars(select(CouncilRun))}


async def tallies(database: Database) -> dict[tuple[str, str, str], tuple[float, float]]:
    """What is stored of skills."""
    async with database.transaction(everybody=True) as session:
        found = await session.scalars(select(SkillRow))
        return {(row.model, row.kind, row.role): (row.wins, row.losses) for row in found}
