"""Engines that admins have registered."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Base


class EngineRow(Base):
    """One engine. `spec` is what the admin wrote (server/engines/kinds.py), without the name and the key."""

    __tablename__ = "engines"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    spec: Mapped[dict[str, Any]] = mapped_column(JSONB)
    api_key: Mapped[str]
    updated_at: Mapped[datetime]
