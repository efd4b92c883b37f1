"""Councils: those that admins name, what they did, and what is learned from them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Double, Index, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Base


class CouncilRow(Base):
    """A council that admins have defined. `chair` is NULL where the best one is chosen.

    `updated_by` has no foreign key: the council outlives whoever set it.
    """

    __tablename__ = "councils"

    name: Mapped[str] = mapped_column(primary_key=True)
    members: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    strategy: Mapped[str]
    chair: Mapped[str | None]
    rounds: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    updated_by: Mapped[UUID | None]


class SkillRow(Base):
    """How often a model won and lost with a kind of question, as one who answers or as the chair.

    Both are sums of multiples of 2^-20 (server/council/skills.py), which doubles add and subtract without rounding.
    """

    __tablename__ = "skills"
    __table_args__ = (
        CheckConstraint("role IN ('answer', 'chair')", name="role"),
        CheckConstraint("wins >= 0 AND losses >= 0", name="counts"),
    )

    model: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)
    wins: Mapped[float] = mapped_column(Double())
    losses: Mapped[float] = mapped_column(Double())
    updated_at: Mapped[datetime]


class CouncilRun(Base):
    """One request to a council: how it was set up, who took part, how it ended. Never what was asked or answered.

    `id` is the council's own request; its members' usage rows point to it. No foreign key: the row outlives the person.
    Partitioned by month of the id, which begins with its time.
    `members` holds server/council/runs.py Member objects, `shadow` what another policy would have chosen, `feedback`
    what its person thought of it (server/council/skills.py), and what that changed.
    """

    __tablename__ = "council_runs"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    name: Mapped[str]
    strategy: Mapped[str]
    kind: Mapped[str]
    wanted: Mapped[int | None]
    size: Mapped[int]
    reason: Mapped[str]
    binding: Mapped[str]
    steps: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    members: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    chair: Mapped[str | None]
    verdict_method: Mapped[str | None]
    agreement: Mapped[float | None] = mapped_column(Double())
    winner: Mapped[str | None]
    shadow: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    outcome: Mapped[str]
    started_at: Mapped[datetime]
    total_ms: Mapped[int]
    feedback: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))

    __table_args__ = (
        Index("ix_council_runs_user_id_started_at", "user_id", "started_at"),
        Index("ix_council_runs_started_at_id", "started_at", "id"),
        Index("ix_council_runs_rated", "user_id", postgresql_where=text("feedback IS NOT NULL")),
        {"postgresql_partition_by": "RANGE (id)"},
    )


class ContentionRow(Base):
    """What engines of a box leave each other when `size` of them answer at once.

    `log_sum` is the sum of the logarithms of what was left of a stream's rate alone, `count` how many there were.
    """

    __tablename__ = "contention"

    box: Mapped[str] = mapped_column(primary_key=True)
    hardware: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int] = mapped_column(primary_key=True)
    log_sum: Mapped[float] = mapped_column(Double())
    count: Mapped[int]
    updated_at: Mapped[datetime]
