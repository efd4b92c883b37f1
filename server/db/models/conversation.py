"""What people wrote, and what they were answered. Nobody but its person can read a row of these tables."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, desc, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Base

# Of a text, what can be searched: a tsvector holds a megabyte at the most, and a word takes more there than it is long.
SEARCHED_CHARS = 100_000
STATES = ("streaming", "complete", "stopped", "failed", "interrupted")


class Conversation(Base):
    """One conversation. `leaf_id` is the last message of the branch that its person looks at.

    `cloud` is what its person allows of it to leave this box (server/privacy/modes.py); NULL: as everywhere.
    """

    __tablename__ = "conversations"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    title: Mapped[str]
    model: Mapped[str]
    leaf_id: Mapped[UUID | None]
    pinned_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    imported_from: Mapped[str | None]
    cloud: Mapped[str | None]

    __table_args__ = (
        Index("ix_conversations_user_id_updated_at", "user_id", desc("updated_at"), desc("id")),
        Index(
            "ix_conversations_pinned",
            "user_id",
            desc("updated_at"),
            desc("id"),
            postgresql_where=text("pinned_at IS NOT NULL"),
        ),
    )


class Message(Base):
    """One question or answer. Siblings, which have the same parent, are branches.

    Partitioned by month of the id, which begins with its time; so there are no foreign keys, here or from elsewhere.
    Searched by the function `found_messages` (migration 0009): under a policy no full-text index is used, since its
    operator might tell something about rows of others. `request_id` is its usage row, of a council the `council_runs`
    row; `council` is how that was set up and how it ended; `cloud` says who answered outside of this box, and how.

    States: streaming, complete, stopped (by its person), failed (`problem` says why), interrupted (the server died).
    """

    __tablename__ = "messages"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    conversation_id: Mapped[UUID]
    user_id: Mapped[UUID]
    parent_id: Mapped[UUID | None]
    role: Mapped[str]
    content: Mapped[str]
    thinking: Mapped[str]
    model: Mapped[str]
    state: Mapped[str]
    problem: Mapped[str | None]
    request_id: Mapped[UUID | None]
    council: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    finish_reason: Mapped[str | None]
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    first_token_ms: Mapped[int | None]
    total_ms: Mapped[int | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    cloud: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))

    __table_args__ = (
        CheckConstraint("role IN ('user', 'assistant', 'system')", name="role"),
        CheckConstraint(f"state IN ({', '.join(map(repr, STATES))})", name="state"),
        Index("ix_messages_conversation_id_id", "conversation_id", "id"),
        Index(
            "ix_messages_search",
            func.to_tsvector(text("'simple'"), func.left(text("content"), text(str(SEARCHED_CHARS)))),
            postgresql_using="gin",
            # An answer that grows is written every two seconds.
            postgresql_where=text("state <> 'streaming'"),
        ),
        {"postgresql_partition_by": "RANGE (id)"},
    )


class MemberAnswer(Base):
    """What one member of a council answered. Partitioned like messages."""

    __tablename__ = "member_answers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    message_id: Mapped[UUID]
    conversation_id: Mapped[UUID]
    user_id: Mapped[UUID]
    label: Mapped[str]
    model: Mapped[str]
    role: Mapped[str]
    content: Mapped[str]
    state: Mapped[str]
    output_tokens: Mapped[int | None]

    __table_args__ = (
        Index("ix_member_answers_message_id", "message_id"),
        {"postgresql_partition_by": "RANGE (id)"},
    )
