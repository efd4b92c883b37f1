"""What admins allow."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Base


class Quota(Base):
    """One rule: for everybody (scope `default`), for a role, or for a person; at most one of each.

    `rule` holds the limits that it sets, as quotas/policy.py checks them: an absent one is inherited, null is
    unlimited.
    `updated_by` is NULL for the command line, and no foreign key: the rule outlives whoever set it.
    """

    __tablename__ = "quotas"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    scope: Mapped[str]
    role: Mapped[str | None] = mapped_column(unique=True)
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), unique=True)
    rule: Mapped[dict[str, Any]] = mapped_column(JSONB)
    updated_at: Mapped[datetime]
    updated_by: Mapped[UUID | None]

    __table_args__ = (
        CheckConstraint(
            "(scope = 'default' AND role IS NULL AND user_id IS NULL)"
            " OR (scope = 'role' AND role IS NOT NULL AND role IN ('admin', 'member') AND user_id IS NULL)"
            " OR (scope = 'user' AND role IS NULL AND user_id IS NOT NULL)",
            name="scope",
        ),
        Index("uq_quotas_default", "scope", unique=True, postgresql_where=text("scope = 'default'")),
    )
