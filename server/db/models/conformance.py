"""What is known of engines' promises."""

from datetime import datetime
from typing import Any

from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Base


class ConformanceRow(Base):
    """What the last test of an engine found (server/engines/conformance.py), and which engine that was.

    `found` is NULL while the first test runs; `claimed_until` is set while a replica tests it. No foreign key: engines
    of the settings have no row.
    """

    __tablename__ = "conformance"

    engine: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    url: Mapped[str]
    version: Mapped[str]
    found: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    tested_at: Mapped[datetime | None]
    claimed_until: Mapped[datetime | None]
