"""What went from tables into files."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Base


class ArchiveRow(Base):
    """A month of a table that is in a file, which is to be believed only if its SHA-256 is this.

    `path` is below the archive folder; a file that is written anew, without what people removed, has the next
    `generation`. `month` is written as 2026_08, `ends` is the first moment after it. `revision` is the schema's when
    the file was first written.
    """

    __tablename__ = "archives"
    __table_args__ = (UniqueConstraint("table_name", "month"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    table_name: Mapped[str]
    month: Mapped[str]
    ends: Mapped[datetime]
    path: Mapped[str]
    generation: Mapped[int]
    rows: Mapped[int]
    file_bytes: Mapped[int]
    sha256: Mapped[bytes]
    revision: Mapped[str]
    archived_at: Mapped[datetime]
    rewritten_at: Mapped[datetime | None]


class RestoredConversation(Base):
    """That a file was asked for a conversation, and what it had of it is in the table again.

    No foreign key to the conversation: its row here is removed by upkeep.
    """

    __tablename__ = "restored_conversations"

    conversation_id: Mapped[UUID] = mapped_column(primary_key=True)
    archive_id: Mapped[UUID] = mapped_column(ForeignKey("archives.id", ondelete="CASCADE"), primary_key=True)
    restored_at: Mapped[datetime]
